/**
 * An activity on a vbd belongs to the client that asked for it: when the client goes away, it is cancelled and undone.
 * A command with --force cancels the activity that is under way.
 */
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Client } from '../e2e/client.js';
import { collect, eventually, type start } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';
import { type Bus, startBus, startBusOn } from './bus.js';

t.setTimeout(300_000);

const SIZE = 8 << 20;
const skip = whyNot('dd');

async function withImage(t: Test): Promise<{ bus: Bus; image: string }> {
  const bus = await startBus(t);
  return { bus, image: await bus.bench.image('disk.img', SIZE, 1 << 20) };
}

/** Waits until an activity is under way, which the refusal of another command shows. */
async function isDoing(bus: Bus, refusal: RegExp, word = 'resume'): Promise<void> {
  let last = '';
  await eventually(`${refusal}`, 20_000, async () => {
    const { status, stderr } = await bus.bench.fusetap([word, 'xvda']);
    last = `${status}: ${stderr}`;
    return status === 4 && refusal.test(stderr);
  }).catch((error: Error) => {
    throw new Error(`${error.message}, but ${last}`);
  });
}

/**
 * Starts a detach that waits for a holder, and waits until it does. It is started again if the test's own detach came
 * first.
 */
async function startDetach(bus: Bus): Promise<ReturnType<typeof start>> {
  const begin = (): ReturnType<typeof start> => bus.bench.startFusetap(['detach', '--wait', '10000', 'xvda']);
  let waiting = begin();
  await eventually('a detach that waits', 40_000, async () => {
    const { stderr } = await bus.bench.fusetap(['detach', 'xvda']);
    if (waiting.exitCode !== null) waiting = begin();
    return /is being detached already: wait for that, or use detach --force/.test(stderr);
  });
  return waiting;
}

t.test('a detach that waits ends with its client, and the vbd stays', { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  const { path } = await bus.attach({ driver: 'aio', image });
  const holder = await Client.open(t, bus.bench, 'read', path);
  const waiting = await startDetach(bus);
  t.match(await bus.bench.fusetap(['stop']), { status: 4, stderr: /is being detached already/ });
  waiting.kill('SIGINT');
  await collect(waiting);
  await isDoing(bus, /xvda on bus 0 is in use by pid/, 'detach');
  await holder.release();
  await delay(300);
  t.match((await bus.info()).vbds, [{ vdev: 'xvda', state: 'running' }], 'the detach was cancelled');
  t.equal(await bus.bench.sh('head -c 4 "$1" | wc -c', path), '4', 'and it can be opened');
  await bus.bench.detach('xvda');
});

t.test('detach --force and stop --force cancel a detach that waits', { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  for (const words of [
    ['detach', '--force', 'xvda'],
    ['stop', '--force'],
  ]) {
    if (words[0] === 'stop') await bus.bench.begin();
    const { path } = await bus.attach({ driver: 'aio', image });
    const holder = await Client.open(t, bus.bench, 'read', path);
    const waiting = collect(await startDetach(bus));
    t.match(await bus.bench.fusetap(words), { status: 0 }, words.join(' '));
    const { status, stderr } = await waiting;
    t.equal(status, 4);
    t.match(stderr, /detached by force meanwhile|is ending/);
    await holder.release();
  }
});

t.test('two detaches by force at once both succeed', { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  const { path } = await bus.attach({ driver: 'aio', image });
  const holder = await Client.open(t, bus.bench, 'write', path);
  // the first cannot finish before the second was read
  const serverPid = await bus.serverPid();
  await standStill(serverPid);
  const goOn = (): boolean => process.kill(serverPid, 'SIGCONT');
  t.teardown(goOn);
  const first = bus.detach('xvda', '?force=1');
  await isDoing(bus, /is being detached already/, 'detach');
  const second = bus.detach('xvda', '?force=1');
  await isDoing(bus, /is being detached already/, 'detach');
  goOn();
  for (const gone of await Promise.all([first, second])) t.match(gone, { vbds: [{ vdev: 'xvda' }] });
  t.same((await bus.info()).vbds, []);
  await holder.release();
});

t.test('a save that is interrupted, or cancelled by a detach by force, leaves no file', { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  const files = async (): Promise<string[]> => (await readdir(bus.bench.directory)).sort();
  const slow = { driver: 'aio', image, filters: [{ name: 'delay', value: '10000' }] };
  const { path } = await bus.attach(slow);
  const before = await files();
  const saving = bus.bench.startFusetap(['save', 'xvda', 'copy.img']);
  await isDoing(bus, /is being saved: wait until the save has ended, or end it with detach --force/);
  t.match(await bus.bench.fusetap(['stop']), { status: 4, stderr: /is being saved/ });
  saving.kill('SIGINT');
  await collect(saving);
  await eventually('the vbd is resumed', 20_000, async () => (await bus.info()).vbds[0]?.state === 'running');
  t.same(await files(), before);

  const again = collect(bus.bench.startFusetap(['save', 'xvda', 'copy.img']));
  await isDoing(bus, /is being saved/);
  await bus.bench.succeed(['detach', '--force', 'xvda']);
  t.match(await again, { status: 4, stderr: /detached by force meanwhile/ });
  t.same(await files(), before);
  t.match(await bus.bench.try('head -c 1 "$1"', path), { status: 1 });
});

t.test('a save does not wait for the stopped keeper of another bus', { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  const other = await startBusOn(bus.bench, {}, 'other');
  const wish = { driver: 'ram', image, passthrough: 'off' as const };
  const { path } = await bus.attach(wish);
  const { path: otherPath } = await other.attach(wish);
  const { keeperPid } = await other.info();
  const write = (file: string): Promise<string> => {
    return bus.bench.sh('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none && echo ok', file);
  };
  await standStill(keeperPid);
  t.teardown(() => process.kill(keeperPid ?? 0, 'SIGCONT'));

  const interrupted = bus.bench.startFusetap(['save', 'xvda', 'copy.img']);
  await isDoing(bus, /is being saved/);
  interrupted.kill('SIGINT');
  await collect(interrupted);
  await eventually('the vbd is resumed', 20_000, async () => (await bus.info()).vbds[0]?.state === 'running');
  t.equal(await write(path), 'ok');

  const refused = await bus.bench.fusetap(['save', 'xvda', 'copy.img']);
  t.match(refused, { status: 4, stderr: /xvda on bus other may write to these bytes, and its bus does not answer/ });
  t.equal(await write(path), 'ok');

  process.kill(keeperPid ?? 0, 'SIGCONT');
  await eventually('the other vbd is resumed', 20_000, async () => (await other.info()).vbds[0]?.state === 'running');
  t.equal(await write(otherPath), 'ok', 'a pause that was asked for while the keeper was stopped is not done later');
  await bus.bench.succeed(['save', 'xvda', 'copy.img']);
});

t.test("fusetap's own read is not counted as an open", { skip }, async (t) => {
  const { bus, image } = await withImage(t);
  // the proving read of the attach takes two seconds
  const attaching = bus.bench.startFusetap(['attach', '--filter', 'delay=2000', image]);
  let seen = 0;
  await eventually('the end of the attach', 30_000, async () => {
    for (const { opens } of await bus.bench.list()) {
      t.equal(opens, 0);
      seen += 1;
    }
    return attaching.exitCode !== null;
  });
  t.ok(seen > 1, 'it was listed during the attach');
  const holder = await Client.open(t, bus.bench, 'read', `${bus.place.path}/xvda`);
  t.equal((await bus.bench.list())[0]?.opens, 1, 'others are counted');
  await holder.release();
});
