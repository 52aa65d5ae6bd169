/**
 * Every ending of a bus flushes each vbd once: by a signal, by two signals, during a save, after a failure, while vbds
 * are in use. A third-party driver records its flushes in a file.
 */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { askBus } from '../../mount/control/http-client.js';
import type { DetachResult } from '../../mount/control/interface.js';
import { Client } from '../e2e/client.js';
import { eventually, isInstalled } from '../e2e/command.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { type Bus, KERNEL, startBus } from './bus.js';

t.setTimeout(400_000);
const skip = whyNot();
const LIMIT_MS = 20_000;

/** A driver that records in a file when a flush begins and ends. `until`: the flush waits until that file exists. */
const RECORDER = `import { appendFileSync, existsSync, readSync, writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
export default {
  name: 'recorder',
  image: 'required',
  async open({ image, options: { log, until = '/' } }) {
    return {
      size: image.sizeBytes,
      read(buffer, offset) { readSync(image.fd, buffer, 0, buffer.length, offset); },
      write(buffer, offset) { writeSync(image.fd, buffer, 0, buffer.length, offset); },
      async flush() {
        appendFileSync(log, 'begun\\n');
        while (!existsSync(until)) await delay(20);
        appendFileSync(log, 'flushed\\n');
      },
      close() { appendFileSync(log, 'closed\\n'); },
    };
  },
};`;

/** A vbd whose driver records its flushes. */
interface RecordedVbd {
  readonly vdev: string;
  readonly path: string;
  /** the records so far */
  records(): Promise<string>;
}

async function attachRecorder(bus: Bus, name: string, until = '/'): Promise<RecordedVbd> {
  const { bench } = bus;
  await writeFile(bench.path('recorder.mjs'), RECORDER);
  const log = bench.path(`${name}.records`);
  await appendFile(log, '');
  const image = await bench.image(`${name}.img`, 1 << 20);
  const { vdev, path } = await bus.attach({ driver: bench.path('recorder.mjs'), image, options: { log, until } });
  return { vdev, path, records: () => readFile(log, 'utf8') };
}

async function signalKeeper(bus: Bus, signal: NodeJS.Signals): Promise<void> {
  process.kill((await bus.info()).keeperPid as number, signal);
}

/** Waits until keeper and server have ended. */
async function isOver(bus: Bus): Promise<void> {
  await eventually('the bus has ended', LIMIT_MS, async () => (await bus.bench.busProcesses()).length === 0);
}

async function write(bench: Bench, path: string, text = 'PRECIOUS'): Promise<void> {
  await bench.sh('printf "$2" | dd of="$1" conv=notrunc status=none', path, text);
}

t.test('a second signal waits for the ending that the first began', { skip }, async (t) => {
  const bus = await startBus(t);
  const vbd = await attachRecorder(bus, 'slow', bus.bench.path('go'));
  await write(bus.bench, vbd.path);
  await signalKeeper(bus, 'SIGTERM');
  await eventually('the flush has begun', LIMIT_MS, async () => (await vbd.records()).includes('begun'));
  await signalKeeper(bus, 'SIGHUP');
  const stopped = askBus<DetachResult>(bus.place, { method: 'POST', path: '/stop', body: { force: true } });
  await delay(500);
  t.equal(await vbd.records(), 'begun\n', 'neither a signal nor a stop interrupts it');
  await bus.bench.sh('touch go');
  t.match(
    await stopped,
    { vbds: [{ vdev: vbd.vdev }], ended: true },
    'a stop waits for it, and reports the detached vbds',
  );
  await isOver(bus);
  t.equal(await vbd.records(), 'begun\nflushed\nclosed\n', 'one flush, which finished');
  t.same(await bus.bench.traces(), [], 'nothing is left');
});

t.test('a signal in the middle of a save', { skip }, async (t) => {
  const bus = await startBus(t);
  const image = await bus.bench.image('big.img', 64 << 20, 64 << 20);
  const big = await bus.attach({ driver: 'aio', image, filters: [{ name: 'delay', value: '50' }] });
  const others = [await attachRecorder(bus, 'one'), await attachRecorder(bus, 'two')];
  for (const { path } of [big, ...others]) await write(bus.bench, path);
  const save = bus.bench.fusetap(['save', big.vdev, bus.bench.path('copy.img')]);
  await eventually('the copy is made', LIMIT_MS, async () => (await bus.info()).vbds[0]?.state === 'paused');
  await signalKeeper(bus, 'SIGTERM');
  await isOver(bus);
  t.not((await save).status, 0, 'the save was given up');
  t.notOk(existsSync(bus.bench.path('copy.img')), 'and left nothing');
  for (const { records } of others) t.equal(await records(), 'begun\nflushed\nclosed\n', 'the others were flushed');
  t.same(await bus.bench.traces(), [], 'nothing is left');
});

t.test('a vbd that hangs does not keep others from being flushed', { skip }, async (t) => {
  const bus = await startBus(t, { FUSETAP_FLUSH_LIMIT_MS: '3000' });
  const hangs = await attachRecorder(bus, 'hangs', '/nowhere');
  const other = await attachRecorder(bus, 'other');
  const { status, stderr, stdout } = await bus.bench.fusetap(['stop', '--force', '--json']);
  t.equal(status, 1);
  t.match(stderr, /xvda .*not flushed within 3 s/);
  t.match(JSON.parse(stdout), [{ vdev: hangs.vdev, error: { code: 'FAILED' } }, { vdev: other.vdev }]);
  t.equal(await other.records(), 'begun\nflushed\nclosed\n');
  // the process of the keeper may end a moment after its answer
  await eventually('nothing is left', 10_000, async () => (await bus.bench.traces()).length === 0);
});

t.test('a limit that is no number is refused', { skip }, async (t) => {
  const bus = await startBus(t);
  const wrong = { FUSETAP_FLUSH_LIMIT_MS: ['soon'], FUSETAP_SILENCE_LIMIT_MS: ['abc', '0', '-1', '1e99'] };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const refused = await bus.bench.fusetap(['start', '--bus', 'other'], { env: { [name]: value } });
      t.match(refused, {
        status: 2,
        stderr: new RegExp(`^fusetap: ${name} is not a number of milliseconds: '${value}'`),
      });
      t.same(await readdir(join(bus.bench.runtimeDir, 'bus')), ['0'], 'nothing is left of the attempt');
    }
  }
  const named = await bus.bench.fusetap(['ls', '--bus', '0'], { env: { FUSETAP_BUS: 'a b' } });
  t.equal(named.status, 0, 'a variable that is not used does not matter');
  const unnamed = await bus.bench.fusetap(['show'], { env: { FUSETAP_BUS: 'a b' } });
  t.match(unnamed, { status: 2, stderr: /\$FUSETAP_BUS: not a name of a bus: 'a b'/ });
});

t.test('after a signal and a failed flush the log stays', { skip }, async (t) => {
  const bus = await startBus(t);
  const image = await bus.bench.image('disk.img', 1 << 20);
  await bus.attach({ driver: 'aio', image, filters: [{ name: 'error', value: 'flush' }] });
  await signalKeeper(bus, 'SIGTERM');
  await isOver(bus);
  const [last] = (await bus.bench.succeed(['log', '--json'])).split('\n').slice(-1);
  t.match(JSON.parse(last ?? ''), { event: 'not-durable', vdev: 'xvda', image, reason: /injected error/ });
  t.equal(await bus.bench.succeed(['ls', '--json']), '[]', 'ls shows no bus');
  await bus.bench.attach(image);
  await bus.bench.detach('xvda');
  t.same(await bus.bench.traces(), [], 'the next bus of that name removes it');
});

t.test('a bus whose mount was removed is flushed by its server', { skip }, async (t) => {
  const bus = await startBus(t);
  const vbd = await attachRecorder(bus, 'one');
  await write(bus.bench, vbd.path);
  await hasFailed(bus);
  t.equal((await bus.bench.fusetap(['detach', vbd.vdev])).status, 0);
  t.equal(await vbd.records(), 'begun\nflushed\nclosed\n');
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), []);
});

/** Unmounts the bus as systemd does at shutdown. */
async function hasFailed(bus: Bus): Promise<void> {
  await bus.bench.sh('umount "$1"', bus.place.path);
  await eventually('the bus has failed', LIMIT_MS, async () => (await bus.info()).state === 'failed');
}

t.test('without a server the keeper flushes', { skip: skip || !isInstalled('strace') }, async (t) => {
  const bus = await startBus(t);
  const aio = await bus.attach({ driver: 'aio', image: await bus.bench.image('disk.img', 1 << 20) });
  const recorded = await attachRecorder(bus, 'one');
  const unwritten = await attachRecorder(bus, 'two');
  for (const { path } of [aio, recorded]) await write(bus.bench, path);
  const { keeperPid, serverPid } = await bus.info();
  await hasFailed(bus);
  process.kill(serverPid as number, 'SIGKILL');
  const trace = bus.bench.path('trace');
  const strace = bus.bench.startProgram('strace', ['-f', '-y', '-e', 'fsync', '-o', trace, '-p', String(keeperPid)]);
  t.teardown(() => strace.kill('SIGKILL'));
  await eventually('strace has it', LIMIT_MS, async () =>
    /TracerPid:\s*[1-9]/.test(await readFile(`/proc/${keeperPid}/status`, 'utf8')),
  );
  t.equal((await bus.bench.fusetap(['detach', aio.vdev])).status, 0);
  t.match(await readFile(trace, 'utf8'), /fsync\(3<[^>]*disk\.img>\) += 0/, 'through its own descriptor');
  strace.kill('SIGKILL');
  const refused = await bus.bench.fusetap(['detach', recorded.vdev]);
  t.match(
    refused,
    { status: 1, stderr: /xvdb was not flushed: its driver is .*recorder/ },
    'a third-party driver cannot be called',
  );
  t.equal((await bus.bench.fusetap(['detach', unwritten.vdev])).status, 0, 'nothing was written');
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), []);
});

/** The ways to cut a mounted file system off from its vbd. */
const ENDINGS: Readonly<Record<string, (bus: Bus, t: Test) => Promise<void>>> = {
  SIGTERM: async (bus) => {
    await signalKeeper(bus, 'SIGTERM');
    await isOver(bus);
  },
  'stop --force': async (bus, t) => {
    const { status, stdout, stderr } = await bus.bench.fusetap(['stop', '--force', '--json']);
    t.equal(status, 0, stderr);
    t.match(JSON.parse(stdout), [{ cutOff: [{ loop: /^\/dev\/loop/, mount: /m$/ }] }]);
    t.match(stderr, /cut off from xvda of bus 0: \/dev\/loop\d+ mounted on \S+m;/, 'it names the users');
  },
  'detach --force': async (bus, t) => {
    t.match(await bus.bench.fusetap(['detach', '--force', 'xvda']), { status: 0, stderr: /cut off .*\/m;/ });
  },
  'stop --force, without a keeper': async (bus) => {
    await signalKeeper(bus, 'SIGKILL');
    await eventually('an orphan', LIMIT_MS, async () => (await bus.info().catch(() => null))?.state === 'orphaned');
    await bus.bench.succeed(['stop', '--force']);
  },
};

for (const [name, end] of Object.entries(ENDINGS)) {
  t.test(
    `a file system on a vbd is written back first: ${name}`,
    { skip: whyNot('losetup', 'mkfs.ext4') },
    async (t) => {
      const bus = await startBus(t);
      const { bench } = bus;
      const image = await bench.image('disk.img', 64 << 20);
      await bench.sh('mkfs.ext4 -q disk.img; mkdir m');
      const { path } = await bus.attach({ driver: 'aio', image });
      await bench.sh('mount -o loop "$1" m; head -c 8M /dev/urandom > doc; cp doc m/doc', path);
      await end(bus, t);
      await bench.sh('umount m');
      await bench.sh('mount -o loop disk.img m; cmp doc m/doc; umount m');
      if ((await bench.busProcesses()).length > 0) await bench.succeed(['stop']);
      t.same(await bench.traces(), [], 'nothing is left');
    },
  );
}

t.test('a file system that cannot be written back is reported', { skip: whyNot('losetup', 'mkfs.ext4') }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const image = await bench.image('disk.img', 64 << 20);
  await bench.sh('mkfs.ext4 -q disk.img; mkdir m; touch broken; rm broken');
  const filters = [{ name: 'error', value: `write@${bench.path('broken')}` }];
  const { path } = await bus.attach({ driver: 'aio', image, filters });
  await bench.sh('mount -o loop "$1" m; head -c 1M /dev/urandom > m/doc; touch broken', path);
  const { status, stderr } = await bench.fusetap(['stop', '--force']);
  await bench.sh('umount m');
  t.equal(status, 1);
  t.match(stderr, /not everything above xvda was written back: .*\/m: Input\/output error/);
  t.same(await bench.traces(), [], 'nothing is left');
});

t.test('stop --wait waits until no vbd is in use', { skip }, async (t) => {
  const bus = await startBus(t);
  const one = await bus.attach({ driver: 'aio', image: await bus.bench.image('one.img', 1 << 20) });
  const two = await bus.attach({ driver: 'aio', image: await bus.bench.image('two.img', 1 << 20) });
  const client = await Client.open(t, bus.bench, 'read', two.path);
  const late = await bus.bench.fusetap(['stop', '--wait', '0.5']);
  t.match(late, { status: 4, stderr: /xvdb on bus 0 is in use by pid \d+ \(perl\): .*--wait SECONDS/ });
  t.equal(await bus.bench.sh('head -c 3 "$1" | wc -c', one.path), '3', 'the other can be opened again');
  const stopping = bus.bench.fusetap(['stop', '--wait', '30']);
  await delay(700);
  t.equal(await client.call('read', 0, 10), '10', 'in use: still served');
  await client.release();
  t.equal((await stopping).status, 0, 'closed: stopped');
  t.same(await bus.bench.traces(), []);
});

t.test('when `run` is killed, its bus ends after its command', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const image = await bench.image('disk.img', 1 << 20);
  const script =
    'echo $$ > pid; until [ -e go ]; do sleep 0.1; done; printf LATE | dd of="$FUSETAP_DEVICE" conv=notrunc';
  const run = bench.startFusetap(['run', image, '--', 'sh', '-c', script]);
  run.on('error', () => {});
  await eventually('the command runs', LIMIT_MS, async () => existsSync(bench.path('pid')));
  const gone = once(run, 'exit');
  run.kill('SIGKILL');
  await gone;
  await delay(1_500);
  t.equal((await bench.list()).length, 1, 'the command still has its disk');
  await bench.sh('touch go');
  await eventually('the bus has ended', LIMIT_MS, async () => (await bench.traces()).length === 0);
  t.equal(await bench.sh('head -c 4 "$1"', image), 'LATE', 'what it wrote is in the image');
});
