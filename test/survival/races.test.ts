/**
 * Upgrades and deaths of servers during all other commands: never more than one server reads, and the attached vbds are
 * there afterwards.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { Crashes } from './crashes.js';

t.setTimeout(300_000);
const skip = whyNot();

async function servers(bus: Bus): Promise<number> {
  return (await bus.bench.busProcesses()).filter((line) => line.includes('server/main.cjs')).length;
}

async function hasOneServer(t: Test, bus: Bus): Promise<void> {
  await eventually('there is one server', 10_000, async () => (await servers(bus)) === 1);
  t.equal((await bus.info()).state, 'running');
}

async function serves(t: Test, bus: Bus, path: string): Promise<void> {
  t.equal(await bus.bench.sh('head -c 100 "$1" | wc -c', path), '100', 'the vbd is served');
}

async function begin(t: Test, env: Record<string, string> = {}) {
  const bus = await startBus(t, env);
  const image = await bus.bench.image('disk.img', 4 << 20);
  const vbd = await bus.attach({ driver: 'aio', image });
  return { bus, vbd };
}

void t.test('the old server dies while the new one loads', { skip }, async (t) => {
  const { bus, vbd } = await begin(t);
  for (let i = 0; i < 8; i++) {
    const pid = await bus.serverPid();
    const upgrade = bus.upgrade().catch((error: Error) => error);
    await delay(i * 60);
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // it has been replaced already
    }
    await serves(t, bus, vbd.path);
    await upgrade;
    await serves(t, bus, vbd.path);
    await hasOneServer(t, bus);
  }
});

void t.test('the new server dies as it begins', { skip }, async (t) => {
  const crashes = new Crashes();
  const { bus, vbd } = await begin(t, crashes.env);
  for (const step of ['start', 'load'] as const) {
    crashes.arm(step, 0, 1);
    await bus.upgrade().catch((error: Error) => t.comment(error.message));
    await serves(t, bus, vbd.path);
    await hasOneServer(t, bus);
    t.equal(crashes.left(), 0);
  }
});

void t.test('two upgrades at once', { skip }, async (t) => {
  const { bus, vbd } = await begin(t);
  await Promise.allSettled([bus.upgrade(), bus.upgrade(), bus.upgrade()]);
  await serves(t, bus, vbd.path);
  await hasOneServer(t, bus);
});

for (const how of ['upgrade', 'kill'] as const) {
  void t.test(`attach and detach during ${how}`, { skip }, async (t) => {
    const { bus, vbd } = await begin(t);
    for (let i = 0; i < 6; i++) {
      const image = await bus.bench.image(`other-${i}.img`, 4 << 20);
      const change = how === 'kill' ? bus.killServer() : bus.upgrade();
      await delay(i * 60);
      const other = await bus.attach({ driver: 'aio', image });
      await change;
      await serves(t, bus, other.path);
      const again = how === 'kill' ? bus.killServer() : bus.upgrade();
      await delay(i * 60);
      t.match(await bus.detach(other.vdev), { vbds: [{ vdev: other.vdev }] });
      await again;
      await serves(t, bus, vbd.path);
      t.match(await bus.bench.try('stat "$1"', other.path), { status: 1 }, 'the detached vbd is gone');
      // the claim on the image was released
      const anew = await bus.attach({ driver: 'aio', image, mode: 'w' });
      await bus.detach(anew.vdev);
    }
    await hasOneServer(t, bus);
  });

  void t.test(`stop during ${how}`, { skip }, async (t) => {
    for (const delayMs of [0, 80, 160, 240, 400]) {
      const { bus } = await begin(t);
      const pid = await bus.serverPid();
      const change = how === 'kill' ? process.kill(pid, 'SIGKILL') : bus.upgrade().catch(() => {});
      await delay(delayMs);
      await bus.bench.succeed(['stop']);
      await change;
      await eventually('all is gone', 3_000, async () => (await bus.bench.traces()).length === 0).catch(async () => {
        t.same(await bus.bench.traces(), [], `nothing is left, ${delayMs} ms after`);
      });
    }
  });
}

void t.test('a refused stop changes nothing', { skip }, async (t) => {
  const { bus, vbd } = await begin(t);
  const other = await bus.attach({ driver: 'aio', image: await bus.bench.image('other.img', 4 << 20) });
  const client = await Client.open(t, bus.bench, 'read', other.path);
  t.match(await bus.bench.fusetap(['stop']), { status: 4 });
  await serves(t, bus, vbd.path);
  await client.release();
});
