/**
 * A server dies at any step of any request: the client still gets its answer, the disk has the right bytes, and the
 * record of open handles is right.
 */
import t, { type Test } from 'tap';
import * as abi from '../../mount/fuse/protocol/abi.js';
import type { CrashStep } from '../../mount/fuse/thread/crash-point.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { Crashes } from './crashes.js';

t.setTimeout(120_000);

const SIZE_BYTES = 4 << 20;
const STEPS: CrashStep[] = ['read', 'io', 'reply', 'replied'];

async function opensSettle(bus: Bus, wanted: number): Promise<void> {
  await eventually(`${wanted} open handles are recorded`, 10_000, async () => {
    const { vbds } = await bus.info();
    return vbds[0]?.opens === wanted;
  });
}

/** A vbd, and a client that has it open. */
interface Scene {
  readonly bus: Bus;
  readonly client: Client;
  /** of the vbd */
  readonly path: string;
  readonly image: string;
}

/** One operation of a client, with the checks of its result. */
interface Act {
  readonly name: string;
  readonly opcode: number;
  do(t: Test, scene: Scene): Promise<void>;
}

let nextByte = 0;
const ACTS: Act[] = [
  {
    name: 'write',
    opcode: abi.WRITE,
    async do(t, { bus, client, image }) {
      const letter = String.fromCharCode(97 + (nextByte++ % 26));
      t.equal(await client.call('write', 8192, 100_000, letter), '100000');
      const text = await bus.bench.sh('tail -c +8193 "$1" | head -c 100000 | tr -d "$2" | wc -c', image, letter);
      t.equal(text, '0', 'the image has all written bytes');
    },
  },
  {
    name: 'read',
    opcode: abi.READ,
    async do(t, { client }) {
      t.equal(await client.call('read', 0, 1_000_000), '1000000');
    },
  },
  {
    name: 'fsync',
    opcode: abi.FSYNC,
    async do(t, { client }) {
      t.equal(await client.call('fsync'), 'ok');
    },
  },
  {
    name: 'open',
    opcode: abi.OPEN,
    async do(t, { bus, path }) {
      const second = await Client.open(t, bus.bench, 'read', path);
      await opensSettle(bus, 2);
      t.equal(await second.call('read', 0, 10), '10');
      await second.release();
      await opensSettle(bus, 1);
    },
  },
  {
    name: 'release',
    opcode: abi.RELEASE,
    async do(t, { bus, path }) {
      await (await Client.open(t, bus.bench, 'read', path)).release();
      await eventually('the crash has been', 10_000, async () => (await bus.info()).state === 'running');
      await opensSettle(bus, 1);
    },
  },
  {
    name: 'lookup',
    opcode: abi.LOOKUP,
    async do(t, { bus, path }) {
      t.equal(await bus.bench.sh('stat -c %s "$1"', path), String(SIZE_BYTES));
    },
  },
];

for (const way of ['threads', 'main thread'] as const) {
  void t.test(`on ${way}`, { skip: whyNot() }, async (t) => {
    const crashes = new Crashes();
    const bus = await startBus(t, crashes.env);
    const image = await bus.bench.image('disk.img', SIZE_BYTES, SIZE_BYTES);
    // a disk with a delay filter is no window: the main thread serves it
    const filters = way === 'threads' ? [] : [{ name: 'delay', value: '0' }];
    const vbd = await bus.attach({ driver: 'aio', image, filters });
    const client = await Client.open(t, bus.bench, 'write', vbd.path);
    for (const step of STEPS) {
      for (const act of way === 'threads' ? ACTS : ACTS.slice(0, 3)) {
        await t.test(`${act.name}: a crash at step ${step}`, async (t) => {
          const { restarts } = await bus.info();
          crashes.arm(step, act.opcode);
          await act.do(t, { bus, client, path: vbd.path, image });
          await bus.settled(restarts + 1);
          t.equal(crashes.left(), 0, 'the server died at that step');
          await opensSettle(bus, 1);
        });
      }
    }
    await client.release();
    await bus.detach(vbd.vdev, '?wait=5');
    t.same((await bus.info()).vbds, []);
  });
}

t.test('an uncaught error in the main thread', { skip: whyNot() }, async (t) => {
  const crashes = new Crashes();
  const bus = await startBus(t, crashes.env);
  const image = await bus.bench.image('disk.img', SIZE_BYTES);
  const vbd = await bus.attach({ driver: 'aio', image });
  crashes.arm('io', abi.LOOKUP, 1, 'throw');
  t.equal(await bus.bench.sh('head -c 5 "$1" | wc -c', vbd.path), '5');
  await bus.settled(1);
  t.match(await bus.log(), /thrown for a test/, 'the log has the error');
});
