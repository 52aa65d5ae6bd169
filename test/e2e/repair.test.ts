/** Drivers that repair an image at the attach, on a real bus: when they do, and when it must not be done. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { AttachResult } from '../../mount/control/interface.js';
import { openDiskHere } from '../../mount/open-disk.js';
import { emptyImage, GRANULE } from '../drivers/growing/driver.js';
import { type Bus, startBus } from '../survival/bus.js';
import { eventually } from './command.js';
import { whyNot } from './fixtures.js';

t.setTimeout(240_000);
const skip = whyNot('dd');
const MIB = 1 << 20;
const DRIVER = fileURLToPath(new URL('../drivers/growing/driver.js', import.meta.url));

interface Stage {
  readonly bus: Bus;
  readonly options: { readonly log: string };
  /** what the driver has done since the last call */
  happened(): string[];
  /** an image in the bench; `dirty`: as after a crash */
  image(name: string, dirty?: boolean): string;
  /** writes a letter to a granule of xvda, and tells the letter there */
  write(letter: string, granule: number): Promise<void>;
  read(granule: number): Promise<string>;
}

async function stage(t: Test): Promise<Stage> {
  const bus = await startBus(t);
  const { bench } = bus;
  const options = { log: bench.path('driver.log') };
  writeFileSync(options.log, '');
  let told = 0;
  const vbd = bench.path('runtime/bus/0/xvda');
  return {
    bus,
    options,
    happened() {
      const lines = readFileSync(options.log, 'utf8').split('\n').slice(0, -1);
      const fresh = lines.slice(told);
      told = lines.length;
      return fresh;
    },
    image(name, dirty = false) {
      writeFileSync(bench.path(name), emptyImage(MIB, dirty));
      return bench.path(name);
    },
    async write(letter, granule) {
      const script = 'printf %s "$2" | dd of="$1" bs=4096 seek="$3" conv=notrunc status=none';
      await bench.sh(script, vbd, letter, String(granule));
    },
    read: (granule) => bench.sh('dd if="$1" bs=4096 skip="$2" count=1 status=none | head -c 1', vbd, String(granule)),
  };
}

function isDirty(image: string): boolean {
  return readFileSync(image)[16] === 1;
}

t.test(
  'an attach repairs the image once; later servers are told, and find what was acknowledged',
  { skip },
  async (t) => {
    const { bus, options, happened, image, write, read } = await stage(t);
    const a = image('a.img', true);
    const words = ['attach', '--driver', DRIVER, '--image', a, '--option', `log=${options.log}`];
    const { status, stderr } = await bus.bench.fusetap(words);
    t.equal(status, 0);
    t.match(stderr, /a\.img: it was not closed: its table was counted anew/, 'the remark is told');
    t.match(await bus.log(), /image-repaired image=\S*a\.img remark="it was not closed/);
    const { size } = statSync(a);
    t.same(happened(), ['repair a.img dirty', 'open w repaired', `activate ${size}`]);
    t.equal(isDirty(a), false);
    t.match(await bus.info(), { vbds: [{ changedOutside: false }] }, 'a repair is no change from outside');

    await write('x', 7);
    t.equal(isDirty(a), true);
    await bus.killServer();
    t.equal(await read(7), 'x');
    t.same(happened(), ['open w repaired', `activate ${size + GRANULE}`], 'the next server does not repair');
    await write('y', 8);
    await bus.upgrade();
    t.equal(`${await read(7)}${await read(8)}`, 'xy');
    t.same(happened(), ['open w repaired', `activate ${size + 2 * GRANULE}`]);
    await bus.ask('POST', '/vbds/xvda/pause');
    await bus.ask('POST', '/vbds/xvda/resume');
    await write('z', 9);
    t.same(happened(), [], 'a pause opens nothing');
    await bus.ask('POST', '/vbds/xvda/resize');
    t.equal(`${await read(7)}${await read(9)}`, 'xz');
    const larger = `activate ${size + 3 * GRANULE}`;
    t.same(happened(), ['open w repaired', 'open w repaired', larger], 'a resize measures, and opens it again');
    t.match(await bus.info(), { vbds: [{ changedOutside: false, size: MIB }] });
    await bus.detach('xvda');
    t.equal(isDirty(a), false);
    const again = (await bus.attach({ driver: DRIVER, image: a, options })) as AttachResult;
    t.equal(again.notes, undefined, 'there is nothing to remark');
    t.same(happened()[0], 'repair a.img clean');
  },
);

t.test('what is only read is not repaired', { skip }, async (t) => {
  const { bus, options, happened, image } = await stage(t);
  const a = image('a.img', true);
  await bus.attach({ driver: DRIVER, image: a, options, mode: 'r' });
  t.same(happened().slice(0, 1), ['open r not repaired']);
  await bus.detach('xvda');
  happened();
  await t.rejects(bus.attach({ driver: DRIVER, image: a, options, mode: 'w!' }), /only one writer/);
  t.same(happened(), [], 'an attach that is refused changes nothing');
  const below = { driver: DRIVER, options, on: { file: { file: a } } };
  for (const driver of ['snapshot', 'ram']) {
    happened();
    await bus.attachTree({ driver, options: {}, on: { file: below } }, { mode: 'w' });
    t.notMatch(happened().join(), 'repair ', driver);
    await bus.detach('xvda');
  }
  t.equal(isDirty(a), true);
});

t.test('the lower node is repaired first, and what a role only reads is not', { skip }, async (t) => {
  const { bus, options, happened, image } = await stage(t);
  const [low, base] = [image('low.img', true), image('base.img', true)];
  const lower = { driver: DRIVER, options, on: { file: { file: low } } };
  await bus.attachTree({ driver: 'aio', options: {}, on: { file: { file: low } } });
  await bus.detach('xvda');
  // an image inside the disk of the lower one
  await bus.attachTree(lower, { mode: 'w' });
  await bus.bench.sh(
    'cat "$1" | dd of="$2" conv=notrunc status=none',
    image('top.img', true),
    bus.bench.path('runtime/bus/0/xvda'),
  );
  await bus.detach('xvda');
  writeFileSync(
    low,
    Buffer.concat([readFileSync(low).subarray(0, 16), Buffer.from([1]), readFileSync(low).subarray(17)]),
  );
  happened();
  const backing = { driver: DRIVER, options, on: { file: { file: base } } };
  const top = { driver: DRIVER, options, on: { file: lower, backing } };
  const { notes } = (await bus.attachTree(top, { mode: 'w' })) as AttachResult;
  t.match(notes, [/low\.img: it was not closed/, /low\.img: it was not closed/], 'both have the same main file');
  const done = happened();
  t.same(
    done.filter((line) => line.startsWith('repair')),
    ['repair low.img dirty', 'repair low.img dirty'],
  );
  t.equal(isDirty(base), true);
  t.ok(done.includes('open r not repaired'), 'the backing image');
});

t.test('a swap repairs the new image', { skip }, async (t) => {
  const { bus, options, happened, image, write, read } = await stage(t);
  const [a, b] = [image('a.img'), image('b.img', true)];
  await bus.attach({ driver: DRIVER, image: a, options });
  await write('a', 3);
  happened();
  const { bench } = bus;
  const swap = (driver: string, file: string) => {
    const log = driver === DRIVER ? ['--option', `log=${options.log}`] : [];
    return bench.fusetap(['swap', 'xvda', '--driver', driver, '--image', file, ...log]);
  };
  const swapped = await swap(DRIVER, b);
  t.match(swapped, { status: 0, stderr: /b\.img: it was not closed/ });
  t.same(happened().slice(0, 2), ['repair b.img dirty', 'open w repaired']);
  await write('b', 3);
  t.equal(await read(3), 'b');
  t.match(await bus.info(), { vbds: [{ changedOutside: false }] });
  await bus.killServer();
  t.equal(await read(3), 'b');
  t.ok(happened().at(-2)?.startsWith('open w repaired'));

  // the old disk still has the image open: it is dirty, and must not be repaired
  await write('c', 4);
  happened();
  t.equal(isDirty(b), true);
  t.match(await swap(DRIVER, b), { status: 0, stderr: '' });
  t.same(happened()[0], 'open w repaired', 'what was repaired at the attach stays repaired');
  t.equal(isDirty(b), false, 'the old disk was closed');
  t.equal(`${await read(3)}${await read(4)}`, 'bc');
  t.match(await bus.info(), { vbds: [{ changedOutside: false }] }, 'which is no change from outside');
});

t.test(
  'a swap to a file that the vbd has with another driver is refused if it may need a repair',
  { skip },
  async (t) => {
    const { bus, image } = await stage(t);
    const a = image('a.img', true);
    await bus.attach({ driver: 'aio', image: a });
    const { status, stderr } = await bus.bench.fusetap(['swap', 'xvda', '--driver', DRIVER, '--image', a]);
    t.equal(status, 4);
    t.match(stderr, /open with another driver: it cannot be repaired meanwhile/);
    t.equal(isDirty(a), true);
    t.match(await bus.info(), { vbds: [{ driver: 'aio', broken: null }] });
  },
);

t.test('a repair is given up with its attach, and is done again by the next one', { skip }, async (t) => {
  const { bus, options, happened, image } = await stage(t);
  const a = image('a.img', true);
  const slow = bus.bench.startFusetap(
    ['attach', '--driver', DRIVER, '--image', a, '--option', `log=${options.log}`, '--option', 'slow=yes'],
    {},
  );
  await eventually('the repair has begun', 30_000, () => happened().includes('repair a.img dirty'));
  await sleep(1200);
  t.match(await bus.bench.fusetap(['attach', a]), { status: 4 }, 'the image is claimed meanwhile');
  slow.kill('SIGINT');
  await new Promise((resolve) => slow.once('exit', resolve));
  await eventually('the claim is gone', 30_000, async () => {
    return (await bus.bench.fusetap(['attach', '--driver', DRIVER, '--image', a])).status === 0;
  });
  t.match(await bus.log(), / repairing image=/);
  t.equal(isDirty(a), false);
});

t.test('a server that dies of a repair is replaced, and the attach fails', { skip }, async (t) => {
  const { bus, options, happened, image } = await stage(t);
  const a = image('a.img', true);
  const attached = bus.attach({ driver: DRIVER, image: a, options: { ...options, slow: 'yes' } });
  attached.catch(() => {});
  await eventually('the repair has begun', 30_000, () => happened().includes('repair a.img dirty'));
  const { restarts } = await bus.info();
  process.kill(await bus.serverPid(), 'SIGKILL');
  await t.rejects(attached, { code: 'FAILED', message: /the server died/ });
  await bus.settled(restarts + 1);
  await bus.attach({ driver: DRIVER, image: a, options });
  t.equal(isDirty(a), false);
});

t.test('a program that opens a disk without a bus repairs it too', { skip: false }, async (t) => {
  const directory = t.testdir({});
  const [image, log] = [`${directory}/a.img`, `${directory}/log`];
  writeFileSync(image, emptyImage(MIB, true));
  const open = (mode: 'r' | 'w') =>
    openDiskHere({ driver: DRIVER, image, mode, options: { log }, filters: [] }).then((disk) => disk.close());
  await open('r');
  t.equal(isDirty(image), true);
  await open('w');
  t.equal(isDirty(image), false);
  t.same(readFileSync(log, 'utf8').split('\n').slice(0, 3), [
    'open r not repaired',
    'repair a.img dirty',
    'open w repaired',
  ]);
});
