/** An attach whose client goes away before it has the answer is undone: by the bus, whatever happened to the client. */
import { existsSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Client } from '../e2e/client.js';
import { collect, eventually } from '../e2e/command.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';
import { type Manner, type RawClient, rawClient } from '../mount/control/raw-client.js';
import { type Bus, KERNEL, startBus } from './bus.js';

const skip = whyNot();
const MIB = 1 << 20;

t.setTimeout(240_000);

/** A disk that opens when a file is there, and says that it waits for it. */
const GATED = `
  import { existsSync, writeFileSync } from 'node:fs';
  import { setTimeout as delay } from 'node:timers/promises';
  export default {
    name: 'gated',
    image: 'none',
    async open({ options: { gate } }) {
      writeFileSync(gate + '.waits', '');
      while (!existsSync(gate)) await delay(10);
      return { size: 1 << 20, read: async (buffer) => void buffer.fill(7), close: async () => {} };
    },
  };
`;

interface Gate {
  /** what attaches the gated disk */
  readonly words: readonly string[];
  /** its disk for attach --config */
  readonly disk: object;
  waits(): Promise<unknown>;
  open(): void;
}

async function gated(bench: Bench): Promise<Gate> {
  const driver = bench.path('gated.mjs');
  const gate = bench.path('gate');
  await writeFile(driver, GATED);
  return {
    words: ['--driver', driver, '--option', `gate=${gate}`],
    disk: { driver, image: null, options: { gate }, mode: 'r' },
    waits: () => eventually('the disk is being opened', 60_000, async () => existsSync(`${gate}.waits`)),
    open: () => writeFileSync(gate, ''),
  };
}

async function askRaw(t: Test, bus: Bus, manner: Manner): Promise<RawClient> {
  const image = await bus.bench.image('disk.img', MIB, MIB);
  const body = JSON.stringify({ driver: 'aio', image });
  return rawClient(t, join(bus.place.stateDir, 'control.sock'), 'POST /vbds', { manner, body });
}

const attached = (bus: Bus, count: number): Promise<unknown> =>
  eventually(`${count} attached`, 60_000, async () => (await bus.info()).vbds.length === count);

t.test('a client that is killed before it reads the answer', { skip }, async (t) => {
  const bus = await startBus(t);
  const client = await askRaw(t, bus, 'stop');
  await attached(bus, 1);
  await delay(300);
  await attached(bus, 1);
  await client.kill();
  await attached(bus, 0);
  t.match(await bus.log(), / undone vdev=xvda\n/);
});

t.test('a client that is killed when it has read the answer', { skip }, async (t) => {
  const bus = await startBus(t);
  const client = await askRaw(t, bus, 'read');
  t.match(await client.printed(/END/), /HTTP\/1\.1 201 Created.*"vdev":"xvda"/s);
  await client.kill();
  await delay(1500);
  t.match((await bus.info()).vbds, [{ vdev: 'xvda', state: 'running' }]);
  await bus.detach('xvda');
});

t.test('a vbd that others use by then is detached when they are done', { skip }, async (t) => {
  const bus = await startBus(t);
  const client = await askRaw(t, bus, 'stop');
  await attached(bus, 1);
  const [vbd] = (await bus.info()).vbds;
  const user = await Client.open(t, bus.bench, 'write', vbd?.path ?? '');
  await client.kill();
  await eventually('it is undone', 20_000, async () => / undone /.test(await bus.log()));
  await delay(1500);
  t.match((await bus.info()).vbds, [{ vdev: 'xvda', state: 'running' }]);
  t.equal(await user.call('write', 0, 4), '4', 'they can go on');
  await user.release();
  await attached(bus, 0);
});

t.test('fusetap attach, killed while the answer waits for it', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const gate = await gated(bench);
  const attach = bench.startFusetap(['attach', ...gate.words]);
  const ended = collect(attach);
  await gate.waits();
  await standStill(attach.pid);
  gate.open();
  await eventually('it is attached', 60_000, async () => (await bench.list()).length === 1);
  attach.kill('SIGKILL');
  t.match(await ended, { signal: 'SIGKILL', stdout: '' });
  await eventually('the bus has ended', 20_000, async () => (await bench.traces()).length === 0);
});

t.test('fusetap attach, killed while the disk is being opened', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const gate = await gated(bench);
  const attach = bench.startFusetap(['attach', ...gate.words]);
  await gate.waits();
  attach.kill('SIGKILL');
  await collect(attach);
  gate.open();
  await eventually('the bus has ended', 20_000, async () => (await bench.traces()).length === 0);
});

/** Starts to attach two images; the second is gated. */
async function attachTwo(bench: Bench) {
  const gate = await gated(bench);
  const image = await bench.image('a.img', MIB, MIB);
  await writeFile(bench.path('disks.json'), JSON.stringify([{ driver: 'aio', image }, gate.disk]));
  const attach = bench.startFusetap(['attach', '--config', 'disks.json']);
  const ended = collect(attach);
  await gate.waits();
  return { gate, attach, ended };
}

t.test('fusetap attach of several images, interrupted while the last is opened', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const { gate, attach, ended } = await attachTwo(bench);
  attach.kill('SIGINT');
  await delay(300);
  gate.open();
  t.match(await ended, { status: 130, stdout: '' });
  t.same(await bench.traces(), [], 'nothing is left when it has ended');
});

t.test('fusetap attach of several images, interrupted while the last answer waits for it', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const { gate, attach, ended } = await attachTwo(bench);
  await standStill(attach.pid);
  gate.open();
  await eventually('both are attached', 60_000, async () => (await bench.list()).length === 2);
  attach.kill('SIGINT');
  attach.kill('SIGCONT');
  t.match(await ended, { status: 130, stdout: '' });
  t.same(await bench.traces(), [], 'nothing is left when it has ended');
});

t.test('fusetap attach of several images, interrupted while a disk hangs', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const { gate, attach, ended } = await attachTwo(bench);
  attach.kill('SIGINT');
  t.match(await ended, { status: 130, stdout: '' }, 'it does not wait for ever');
  gate.open();
  await eventually('the bus has ended', 20_000, async () => (await bench.traces()).length === 0);
});
