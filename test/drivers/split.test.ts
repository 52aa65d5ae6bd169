import { execFileSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import { planGraph } from '../../drivers/graph/plan.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { isInstalled } from '../e2e/command.js';
import { type Builder, bySegments, graphFactory, makeFile, openImageDisk, openTreeDisk } from './graph-factory.js';
import { vhdFooter } from './images/vhd.js';

const builder: Builder = async (size, directory) => {
  // pieces need not have the same size
  const ends = [...new Set([0.1, 0.35, 0.6, 0.99, 1].map((part) => Math.ceil(size * part)))];
  let offset = 0;
  const runs = [];
  for (const [i, end] of ends.entries()) {
    const path = await makeFile(join(directory, `disk.img.00${i + 1}`), end - offset);
    runs.push({ path, offset, start: 0, size: end - offset });
    offset = end;
  }
  return { graph: { driver: 'split', options: {}, on: { file: { file: join(directory, 'disk.img.001') } } }, runs };
};

const abilities = { maxSizeBytes: 2 ** 42, holes: false, shrink: false };
diskSuite({ name: 'split', test: t, factory: graphFactory(builder), abilities, runs: 6 });
diskSuite({
  name: 'split by segments',
  test: t,
  factory: graphFactory(builder, { wrap: bySegments }),
  abilities,
  runs: 6,
});

const SIZE = 120_000;

t.test('pieces of split(1)', { skip: isInstalled('split') ? false : 'split is not installed' }, async (t) => {
  for (const [first, ...options] of [
    ['xaa', '-b', '10000'],
    ['xaa', '-b', '1000'],
    ['xaaa', '-b', '1000', '-a', '3'],
    ['x00', '-b', '10000', '-d'],
    ['x00', '-b', '1000', '-d'],
    ['x00', '-n', '99', '-d'],
    ['x000', '-b', '1000', '-d', '-a', '3'],
    ['x001', '-b', '1000', '--numeric-suffixes=1', '-a', '3'],
    ['x01', '-n', '98', '--numeric-suffixes=1', '-a', '2'],
  ] as const) {
    await t.test(`${options.join(' ')}: read here, written here, joined there`, async (t) => {
      const directory = t.testdir();
      await writeFile(join(directory, 'disk'), patternBytes(0, SIZE, 1));
      execFileSync('split', [...options, 'disk', 'x'], { cwd: directory });
      const disk = await openImageDisk('split', join(directory, first));
      const bytes = Buffer.alloc(SIZE + 1);
      t.equal(await disk.read(bytes, 0), SIZE);
      t.ok(bytes.subarray(0, SIZE).equals(patternBytes(0, SIZE, 1)));
      await disk.write(patternBytes(3, 50_000, 2), 30_001);
      await disk.close();
      const joined = execFileSync('bash', ['-c', 'cat x*'], { cwd: directory });
      const expected = patternBytes(0, SIZE, 1);
      patternBytes(3, 50_000, 2).copy(expected, 30_001);
      t.ok(joined.equals(expected));
    });
  }
  await t.test('hexadecimal numbers are refused once they differ', async (t) => {
    const directory = t.testdir();
    await writeFile(join(directory, 'disk'), patternBytes(0, SIZE, 1));
    execFileSync('split', ['-x', '-b', '7000', 'disk', 'x'], { cwd: directory });
    const error = { code: 'UNSUPPORTED', message: /'x0a' exists: the pieces have hexadecimal numbers/, hint: /concat/ };
    await t.rejects(openImageDisk('split', join(directory, 'x00')), error);
  });
});

t.test('a piece that is missing is named', async (t) => {
  const directory = t.testdir();
  for (const i of [1, 2, 3, 4, 5]) await makeFile(join(directory, `a.00${i}`), 512);
  await rm(join(directory, 'a.003'));
  const path = join(directory, 'a.001');
  await t.rejects(openImageDisk('split', path), {
    code: 'NOT_FOUND',
    message: "the piece 'a.003' is missing, and later ones exist",
  });
  await makeFile(join(directory, 'a.003'), 512);
  await makeFile(join(directory, 'a.000'), 512);
  await t.rejects(openImageDisk('split', path), { code: 'UNSUPPORTED', message: /'a.000' exists: it comes before/ });
  const disk = await openImageDisk('split', join(directory, 'a.000'));
  t.equal(disk.size, 6 * 512);
  await disk.close();
});

t.test('one piece alone is a disk', async (t) => {
  const disk = await openImageDisk('split', await makeFile(join(t.testdir(), 'a.001'), 700));
  t.equal(disk.size, 700);
  await disk.close();
});

t.test('the pieces of a format', async (t) => {
  const directory = t.testdir();
  const footer = vhdFooter({ size: 3000 });
  const path = await makeFile(join(directory, 'a.vhd.001'), 2000, [0, patternBytes(0, 2000, 1)]);
  await makeFile(join(directory, 'a.vhd.002'), 1300, [0, patternBytes(2000, 1000, 1)], [1000, footer.subarray(0, 300)]);
  await makeFile(join(directory, 'a.vhd.003'), 212, [0, footer.subarray(300)]);
  const below = { driver: 'split', options: {}, on: { file: { file: path } } };
  const graph = { driver: 'vhd', options: {}, on: { file: below } };
  t.equal((await planGraph(graph)).files['file/file']?.isRaw, false, 'they need not look raw');
  t.equal((await planGraph(below)).files.file?.isRaw, true, 'but if they are the disk');
  const disk = frontDisk(await openTreeDisk(graph, false), { readOnly: false });
  t.equal(disk.segments?.length, 2);
  const bytes = Buffer.alloc(3000);
  await disk.read(bytes, 0);
  t.ok(bytes.equals(patternBytes(0, 3000, 1)));
  await disk.close();
  t.ok((await readFile(join(directory, 'a.vhd.003'))).equals(footer.subarray(300)));
});
