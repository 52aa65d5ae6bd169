/** What can be seen of a bus that runs: its log, its counters, its configuration, its leftovers. */
import t, { type Test } from 'tap';
import type { VbdStats } from '../../mount/control/interface.js';
import { readStartTime } from '../../system/proc.js';
import { collect, eventually } from './command.js';
import {
  type Bench,
  JUST_NAMESPACE,
  JUST_USER,
  OTHERS,
  onDefaultTransport,
  openBench,
  shareOut,
  type TestTransport,
} from './fixtures.js';
import { busInfo, kill, replaceServer } from './kill-server.js';

t.setTimeout(360_000);

async function readStats(bench: Bench): Promise<VbdStats[]> {
  return JSON.parse(await bench.succeed(['stats', '--json'])) as VbdStats[];
}

t.test('counters', (t) => {
  const count = async (t: Test, transport: TestTransport): Promise<void> => {
    for (const driver of shareOut(transport, ['aio', 'ram'])) {
      await t.test(driver, async (t) => countRequests(t, await openBench(t, transport), driver));
    }
  };
  onDefaultTransport(t, ['dd', 'fallocate'], count, OTHERS);
  t.end();
});

async function countRequests(t: Test, bench: Bench, driver: string): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20);
  const vbd = await bench.attach('--passthrough', 'off', `${driver}:${image}`);
  const [before] = await readStats(bench);
  t.equal(before?.write.requests, 0);
  await bench.sh('dd if=/dev/zero of="$1" bs=64k count=10 conv=notrunc,fsync status=none', vbd);
  await bench.sh('dd if="$1" of=/dev/null bs=4k count=25 iflag=direct status=none', vbd);
  await bench.sh('fallocate --punch-hole --offset 4096 --length 8192 "$1"', vbd);
  const [after] = await readStats(bench);
  t.match(after, { bus: '0', vdev: 'xvda', passthrough: false });
  t.equal(after?.write.bytes, 640 << 10);
  t.ok(after && after.write.requests >= 1 && after.write.requests <= 10);
  // attach itself has read the first byte
  t.equal((after?.read.requests ?? 0) - (before?.read.requests ?? 0), 25);
  t.equal((after?.read.bytes ?? 0) - (before?.read.bytes ?? 0), 100 << 10);
  t.equal(after?.flush.requests, 2, 'of dd, and of fallocate(1), which flushes before it ends');
  t.match(after?.discard, { requests: 1, bytes: 8192, errors: 0 });
  const { p50, p99, max } = after?.read.latencyUs ?? {};
  t.ok(p50 && p99 && max && 0 < p50 && p50 <= p99 && p99 <= max, `${p50} ≤ ${p99} ≤ ${max}`);

  // beyond the end there is no space
  await bench.try('dd if=/dev/zero of="$1" bs=4k seek=256 count=1 conv=notrunc oflag=direct status=none', vbd);
  const [failed] = await readStats(bench);
  t.equal(failed?.write.errors, 1);
  await replaceServer(bench);
  t.same((await readStats(bench))[0]?.write, failed?.write, 'counters outlive the server');
  await bench.sh('dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none', vbd);
  t.equal(
    (await readStats(bench))[0]?.read.requests,
    (failed?.read.requests ?? 0) + 1,
    'and the next one adds to them',
  );

  await bench.begin();
  await bench.detach('xvda');
  await bench.attach('--passthrough', 'off', `${driver}:${image}`);
  t.equal((await readStats(bench))[0]?.write.requests, 0, 'each attach begins at nothing');
}

t.test('the log', (t) => {
  const log = async (t: Test, transport: TestTransport): Promise<void> => {
    const bench = await openBench(t, transport);
    const vbd = await bench.attach(`aio:${await bench.image('a b.img', 4096)}`);
    const follower = bench.startFusetap(['log', '-f', '--json']);
    const followed = collect(follower);
    await replaceServer(bench);
    t.match(await bench.succeed(['upgrade']), /^\d+\.\d ms pause; server \S+, keeper \S+$/);
    const lines = (await bench.succeed(['log', '--json'])).split('\n').map((line) => JSON.parse(line));
    t.match(lines, [
      { event: 'started', path: `${bench.runtimeDir}/bus/0` },
      { event: 'attached', vdev: 'xvda', driver: 'aio', image: bench.path('a b.img'), mode: 'w', size: 4096 },
      { event: 'server-died', how: 'signal SIGKILL' },
      { event: 'server-replaced', why: 'death' },
      { event: 'server-replaced', why: 'upgrade' },
    ]);
    t.match(
      await bench.succeed(['log']),
      /^\d{4}-\S+Z started [^\n]+\n\S+ attached vdev=xvda driver=aio image="[^"]+a b.img"/,
    );
    await bench.detach(vbd);
    const { status, stdout } = await followed;
    t.equal(status, 0, 'ends with the bus');
    const seen = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    t.match(seen.slice(0, lines.length), lines);
    const last = [
      { event: 'detached', vdev: 'xvda', error: null },
      { event: 'ended', how: 'nothing is attached any more', durable: true },
    ];
    t.match(seen.slice(lines.length), last, 'no line is lost');
    const after = await bench.fusetap(['log', '--json']);
    t.match(after, { status: 0, stdout, stderr: /^fusetap: bus 0 has ended: this is the log of its last run\n$/ });
    t.match(await bench.fusetap(['log', '--bus', 'never']), { status: 3, stderr: /no log of bus never/ });
  };
  onDefaultTransport(t, [], log, JUST_USER);
  t.end();
});

t.test('a bus whose processes are gone has a log, and doctor names it', (t) => {
  const diagnose = async (t: Test, transport: TestTransport): Promise<void> => {
    const bench = await openBench(t, transport);
    await bench.attach(`aio:${await bench.image('disk.img', 4096)}`);
    const { keeperPid, serverPid } = await busInfo(bench);
    const followed = collect(bench.startFusetap(['log', '-f']));
    // the server first is replaced; so the keeper first, and then who would serve on
    for (const pid of [keeperPid, serverPid]) if (pid !== null) kill(pid);
    await eventually('both are gone', 10_000, () => readStartTime(serverPid ?? 0) === null);
    t.match(await bench.succeed(['log']), /started/);
    const { status, stderr } = await followed;
    t.equal(status, 1, 'who follows it learns of the end');
    t.match(stderr, /bus 0 has died: its processes are gone: fusetap stop --bus 0 removes what it left/);
    const { stdout } = await bench.fusetap(['doctor', '--json']);
    const { checks } = JSON.parse(stdout) as { checks: { name: string; ok: boolean; hint: string }[] };
    const dead = checks.find(({ name }) => name === 'bus 0');
    t.match(dead, { ok: false, hint: 'fusetap stop --bus 0' });
    await bench.sh('exec "$@"', process.execPath, ...cliWords(dead?.hint ?? ''));
    t.same(await bench.traces(), [], 'the command does mend it');
  };
  onDefaultTransport(t, [], diagnose, JUST_NAMESPACE);
  t.end();
});

/** the words of a hint, as arguments of the command line under test */
function cliWords(hint: string): string[] {
  return [new URL('../../cli/main.cjs', import.meta.url).pathname, ...hint.split(' ').slice(1)];
}

t.test('config makes the same bus again', (t) => {
  onDefaultTransport(t, [], async (t, transport) => {
    const bench = await openBench(t, transport);
    await bench.attach(`aio:${await bench.image('a.img', 4096)}`, 'xvdc', 'r');
    await bench.attach(`ram:${await bench.image('b 1.img', 8192)}`, 'hda');
    const lines = (await bench.succeed(['config'])).split('\n');
    const before = (await bench.list()).map(({ vdev, driver, image, mode, size }) => ({
      vdev,
      driver,
      image,
      mode,
      size,
    }));
    await bench.succeed(['stop']);
    for (const line of lines) await bench.attach(line);
    t.match(await bench.list(), before);
  });
  t.end();
});
