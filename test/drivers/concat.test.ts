import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import concat from '../../drivers/concat/index.js';
import { frontDisk } from '../../drivers/disk.js';
import type { NodeSpec } from '../../drivers/graph.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { type Builder, bySegments, graphFactory, makeFile, openTreeDisk } from './graph-factory.js';
import { vhdFooter } from './images/vhd.js';

const concatOf = (...parts: (NodeSpec | string)[]): NodeSpec => {
  const on = parts.map((part, i) => [`part${i}`, typeof part === 'string' ? { file: part } : part] as const);
  return { driver: 'concat', options: {}, on: Object.fromEntries(on) };
};

/** Parts of odd sizes, more than ten of them: part10 comes after part9. */
const builder: Builder = async (size, directory) => {
  const count = Math.min(12, size);
  const runs = [];
  for (let i = 0; i < count; i++) {
    const [offset, end] = [Math.floor((size * i) / count), Math.floor((size * (i + 1)) / count)];
    const path = await makeFile(join(directory, `p${i}`), end - offset);
    runs.push({ path, offset, start: 0, size: end - offset });
  }
  return { graph: concatOf(...runs.map(({ path }) => path)), runs };
};

const abilities = { maxSizeBytes: 2 ** 42, holes: false, shrink: false };
diskSuite({ name: 'concat', test: t, factory: graphFactory(builder), abilities, runs: 6 });
diskSuite({
  name: 'concat by segments',
  test: t,
  factory: graphFactory(builder, { wrap: bySegments }),
  abilities,
  runs: 6,
});

t.test('parts may be disks of other drivers', async (t) => {
  const directory = t.testdir();
  const image = Buffer.concat([patternBytes(0, 5000, 1), vhdFooter({ size: 5000 })]);
  const a = await makeFile(join(directory, 'a.vhd'), image.length, [0, image]);
  const b = await makeFile(join(directory, 'b.img'), 3000, [0, patternBytes(0, 3000, 2)]);
  const vhd = { driver: 'vhd', options: {}, on: { file: { file: a } } };
  const disk = frontDisk(await openTreeDisk(concatOf(b, vhd), false), { readOnly: false });
  t.equal(disk.size, 8000);
  t.equal(disk.segments?.length, 2);
  const bytes = Buffer.alloc(8000);
  await disk.read(bytes, 0);
  t.ok(bytes.equals(Buffer.concat([patternBytes(0, 3000, 2), patternBytes(0, 5000, 1)])));
  await disk.write(Buffer.alloc(8000, 7), 0);
  await disk.close();
  t.ok((await readFile(a)).subarray(5000).equals(vhdFooter({ size: 5000 })), 'the footer is no part of it');
});

t.test('parts are in the order of their numbers, however they are listed', async (t) => {
  const directory = t.testdir();
  const on: Record<string, { file: string }> = {};
  for (let i = 11; i >= 0; i--) {
    on[`part${i}`] = { file: await makeFile(join(directory, `p${i}`), 1, [0, Buffer.from([i])]) };
  }
  const disk = frontDisk(await openTreeDisk({ driver: 'concat', options: {}, on }, true), { readOnly: true });
  const bytes = Buffer.alloc(12);
  await disk.read(bytes, 0);
  t.same([...bytes], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  await disk.close();
});

t.test('a part that is missing is named', async (t) => {
  const path = await makeFile(join(t.testdir(), 'a'), 512);
  const open = (on: Record<string, { file: string }>) => openTreeDisk({ driver: 'concat', options: {}, on }, false);
  await t.rejects(open({}), { code: 'USAGE' });
  await t.rejects(open({ part0: { file: path }, part2: { file: path } }), {
    code: 'USAGE',
    message: /part1 is missing/,
  });
  await t.rejects(open({ part1: { file: path } }), { code: 'USAGE', message: /part0 is missing/ });
  await t.rejects(open({ file: { file: path } }), { code: 'USAGE', message: /takes no image/ });
  t.throws(() => concat.check({ parts: 'a' }), { code: 'USAGE' });
});
