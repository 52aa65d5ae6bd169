/** read-only, delay and error, over ram; and what their words mean. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { Change, RawDisk } from '../../../drivers/driver.js';
import { filterNames, makeFilter } from '../../../drivers/filters/index.js';
import { tellErrors } from '../../../drivers/filters/with-filters.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { diskSuite } from '../../conformance/suite.js';
import { bySyncCalls } from '../../conformance/sync-calls.js';
import { overRam, RAM_ABILITIES, withoutSegments } from './over.js';

const make = (name: string, value = '') => makeFilter({ name, value });
const abilities = RAM_ABILITIES;

diskSuite({ name: 'delay=0', test: t, factory: overRam(make('delay', '0')), abilities, runs: 4 });
diskSuite({ name: 'error, never', test: t, factory: overRam(make('error', 'read@/nowhere')), abilities, runs: 4 });
diskSuite({
  name: 'a pile of filters',
  test: t,
  factory: overRam((next) => make('delay', '0')(make('error', 'zero@/nowhere')(withoutSegments(next)))),
  abilities,
  runs: 4,
});

/** A disk of 10000 zeros with filters before it. */
function disk(...filters: [name: string, value?: string][]): Disk {
  const whole: RawDisk = bufferDisk(Buffer.alloc(10_000));
  const raw = filters.reduce((next, [name, value]) => make(name, value)(next), whole);
  return frontDisk(raw, { readOnly: false });
}

const isEio = { code: 'FAILED', errno: constants.errno.EIO, message: /injected error/ };

t.test('read-only: a window stays one, and nobody writes it', async (t) => {
  const made = await overRam(make('read-only'))({ size: 9000, pieces: [], readOnly: false });
  for (const raw of [made.raw, bySyncCalls(made.raw), make('read-only')(withoutSegments(made.raw))]) {
    const front = frontDisk(raw, { readOnly: false });
    t.equal(front.readOnly, true);
    t.not(front.segments?.[0]?.readOnly, false);
    await t.rejects(front.write(Buffer.alloc(1), 0), { code: 'DENIED', errno: constants.errno.EROFS });
    await t.rejects(front.zero(0, 1), { code: 'DENIED' });
    t.equal(await front.read(Buffer.alloc(10), 8995), 5);
    t.same(await front.extents(0, 9000), [{ offset: 0, length: 9000, hole: true }]);
    await front.flush();
  }
  await made.raw.close();
  await made.dispose();
});

t.test('changes pass every filter, and are moved with the bytes', async (t) => {
  const asked: (readonly number[])[] = [];
  const changes = async (offset: number, length: number): Promise<Change[]> => {
    asked.push([offset, length]);
    return [{ offset: offset + 3, length: 4, kind: 'zeros' }];
  };
  const whole: RawDisk = { ...bufferDisk(Buffer.alloc(10_000)), changes };
  const filters = [
    ['offset', '1000'],
    ['sizelimit', '5000'],
    ['delay', '0'],
    ['error', 'read'],
    ['read-only', ''],
  ] as const;
  const raw = filters.reduce(
    (next, [name, value]) => make(name, value)(next),
    tellErrors(whole, () => {}),
  );
  t.same(await frontDisk(raw, { readOnly: true }).changes(4990, 100), [{ offset: 4993, length: 4, kind: 'zeros' }]);
  t.same(asked, [[5990, 10]]);
  await t.rejects(disk(['offset', '10']).changes(0, 5), { code: 'UNSUPPORTED' });
});

t.test('delay: every kind of request waits, and they wait side by side', async (t) => {
  const slow = disk(['delay', '60']);
  const calls = [
    () => slow.read(Buffer.alloc(10), 0),
    () => slow.write(Buffer.alloc(10), 0),
    () => slow.flush(),
    () => slow.zero(0, 10),
    () => Promise.all(Array.from({ length: 50 }, () => slow.read(Buffer.alloc(10), 0))),
  ];
  for (const call of calls) {
    const begun = performance.now();
    await call();
    const tookMs = performance.now() - begun;
    t.ok(tookMs > 55 && tookMs < 1500, `${tookMs.toFixed(0)} ms`);
  }
  await slow.close();
});

t.test('error: one kind, and no other', async (t) => {
  for (const kind of ['read', 'write', 'flush', 'zero']) {
    const broken = disk(['error', kind]);
    const calls: Record<string, () => Promise<unknown>> = {
      read: () => broken.read(Buffer.alloc(10), 0),
      write: () => broken.write(Buffer.alloc(10), 0),
      flush: () => broken.flush(),
      zero: () => broken.zero(0, 10),
    };
    for (const [name, call] of Object.entries(calls)) {
      // the disk below cannot zero, so that zeroing it is writing
      if (name === kind || (name === 'zero' && kind === 'write'))
        await t.rejects(call(), isEio, `${name} with error=${kind}`);
      else await t.resolves(call(), `${name} with error=${kind}`);
    }
    await broken.close();
  }
});

t.test('error: only what touches the range, END not included', async (t) => {
  const broken = disk(['error', 'write:1K-2K'], ['error', 'read:9000-1M']);
  const good: [number, number][] = [
    [0, 1024],
    [2048, 500],
    [1023, 1],
  ];
  const bad: [number, number][] = [
    [1024, 1],
    [2047, 1],
    [0, 1025],
    [1000, 5000],
    [1500, 10],
  ];
  for (const [offset, length] of good) await broken.write(Buffer.alloc(length), offset);
  for (const [offset, length] of bad) await t.rejects(broken.write(Buffer.alloc(length), offset), isEio);
  await t.rejects(broken.zero(0, 5000), isEio, 'zeroing by writing zeros is writing');
  await broken.read(Buffer.alloc(9000), 0);
  await t.rejects(broken.read(Buffer.alloc(9001), 0), isEio);
});

t.test('error: only while its file is there', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'trigger-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const file = join(directory, 'a,b:c@d');
  const broken = disk(['error', `flush@${file}`]);
  await broken.flush();
  await writeFile(file, '');
  await t.rejects(broken.flush(), isEio);
  await rm(file);
  await broken.flush();
});

t.test('words that mean nothing', async (t) => {
  const cases: [name: string, value: string, message: RegExp][] = [
    ['nosuch', '', /no such filter: 'nosuch'/],
    ['constructor', '', /no such filter/],
    ['delay', '', /delay ''/],
    ['delay', 'soon', /delay 'soon'/],
    ['delay', '-1', /delay '-1'/],
    ['delay', '1.5', /1\.5/],
    ['delay', '99999999', /99999999/],
    ['read-only', 'yes', /takes no value: 'yes'/],
    ['error', '', /''/],
    ['error', 'open', /'open' is not a rule/],
    ['error', 'read:5', /is not a rule/],
    ['error', 'read:5-5', /is not a rule/],
    ['error', 'read:6-5', /is not a rule/],
    ['error', 'read:a-b', /'a' is not a size/],
    ['error', 'flush:0-5', /is not a rule/],
    ['error', 'read@relative', /is not a rule/],
    ['error', 'read@', /is not a rule/],
  ];
  for (const [name, value, message] of cases) {
    t.throws(() => make(name, value), { code: 'USAGE', message, hint: /./ }, `${name}=${value}`);
  }
  t.throws(() => make('x'), { code: 'USAGE', hint: new RegExp(`filters are ${filterNames.join(', ')}`) });
});

t.test('the page of filters lists them all', async (t) => {
  const page = readFileSync(new URL('../../../../drivers/filters/README.md', import.meta.url), 'utf8');
  const listed = [...page.matchAll(/^\| `--(?:filter )?([a-z-]+)/gm)].map(([, name]) => name);
  t.same(listed.sort(), [...filterNames].sort());
});

for (const [name, value] of [
  ['delay', '0'],
  ['error', 'read@/nowhere'],
  ['offset', '0'],
  ['sizelimit', '10000'],
] as const) {
  t.test(`${name}: all that a client can ask for reaches the disk below, as it was asked`, async (t) => {
    const calls: unknown[] = [];
    const note = async (...call: unknown[]): Promise<void> => void calls.push(call);
    const below: RawDisk = {
      ...bufferDisk(Buffer.alloc(10_000)),
      write: (buffer, offset, options) => note('write', buffer.byteLength, offset, options),
      zero: (offset, length, options) => note('zero', offset, length, options),
      flush: () => note('flush'),
      close: () => note('close'),
    };
    const front = frontDisk(make(name, value)(below), { readOnly: false });
    await front.write(Buffer.alloc(7), 5, { durable: true });
    await front.zero(6, 8, { punch: true, durable: true });
    await front.flush();
    await front.close();
    t.same(calls, [
      ['write', 7, 5, { durable: true }],
      ['zero', 6, 8, { punch: true, durable: true }],
      ['flush'],
      ['close'],
    ]);
  });
}
