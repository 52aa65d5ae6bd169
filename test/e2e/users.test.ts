/**
 * What is particular to who is not root, and to other users on a bus: who is let in, what is refused and how, and that
 * the bus of a user survives what root's does, and goes when its processes are gone.
 */
import { chmod } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { BusInfo } from '../../mount/bus/interface.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { type Bench, forEachWay, OTHERS, openBench, type TestTransport, withRoot } from './fixtures.js';
import { USER_ID } from './runners.js';

t.setTimeout(120_000);

const SIZE = 4 << 20;
/** the words to run a program as an ordinary user */
const AS_USER = ['setpriv', `--reuid=${USER_ID}`, `--regid=${USER_ID}`, '--clear-groups'];

forEachWay(t, OTHERS.slice(0, 1), async (t, transport) => {
  const tell = async (name: string, body: (t: Test, bench: Bench) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => body(t, await openBench(t, transport)));
  };
  await tell('nobody else is let in, not even root', shutOut);
  await tell('the server, the keeper, both are killed', survive);
  await tell('servers that die are given up', giveUp);
  await tell('buffers that cannot be locked', doWithoutLocks);
  await tell('what only root can have', refuse);
  await tell('doctor', diagnose);
  await t.test('root lets others in', (t) => letIn(t, transport));
});

async function info(bench: Bench): Promise<BusInfo> {
  return JSON.parse(await bench.succeed(['show', '--json'])) as BusInfo;
}

async function shutOut(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE, SIZE));
  const root = withRoot(bench);
  for (const path of [vbd, `${bench.runtimeDir}/bus/0`]) {
    t.match(await root.execute('stat', [path]), { status: 1, stderr: /Permission denied/ });
  }
  t.match(await root.execute('head', ['-c1', vbd]), { status: 1, stderr: /Permission denied/ });
  await bench.sh('cmp "$1" disk.img', vbd);
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function survive(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  const vbd = await bench.attach(image);
  const before = await info(bench);
  process.kill(before.serverPid ?? 0, 'SIGKILL');
  await bench.sh('cmp "$1" disk.img', vbd);
  t.match(await info(bench), { state: 'running', restarts: 1, keeperPid: before.keeperPid });
  await bench.succeed(['upgrade']);
  await bench.sh('cmp "$1" disk.img', vbd);

  process.kill(before.keeperPid ?? 0, 'SIGKILL');
  await eventually('an orphan', 10_000, async () => (await bench.fusetap(['ls'])).stdout.includes('orphaned'));
  await bench.sh('cmp "$1" disk.img', vbd);
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);

  await bench.attach(image);
  const { keeperPid, serverPid } = await info(bench);
  for (const pid of [keeperPid, serverPid]) process.kill(pid ?? 0, 'SIGKILL');
  await eventually('the mount to go', 10_000, async () => (await bench.mounts()).length === 0);
  await bench.attach(image);
  await bench.sh('cmp "$1" disk.img', vbd);
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function giveUp(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE));
  const client = await Client.open(t, bench, 'read', vbd);
  const killed = new Set<number>();
  await eventually('the bus to fail', 30_000, async () => {
    const { state, serverPid } = await info(bench);
    if (serverPid !== null && !killed.has(serverPid) && state !== 'failed') {
      killed.add(serverPid);
      process.kill(serverPid, 'SIGKILL');
    }
    return state === 'failed';
  });
  t.ok(killed.size >= 5);
  // the connection has ended, not only its mount
  t.match(await client.call('read', 0, 1), /not connected|connection abort/);
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

async function doWithoutLocks(t: Test, bench: Bench): Promise<void> {
  await bench.image('disk.img', SIZE, SIZE);
  const limited = 'ulimit -l 64; exec "$@"';
  const fusetap = [process.execPath, bench.program];
  const vbd = await bench.sh(limited, ...fusetap, 'attach', 'disk.img');
  await bench.sh('cmp "$1" disk.img', vbd);
  const { serverPid } = await info(bench);
  t.match(await bench.sh('grep "locked memory" "/proc/$1/limits"', `${serverPid}`), /65536/, 'the limit holds');
  const doctor = await bench.sh(limited, ...fusetap, 'doctor');
  t.match(doctor, /^- locked-memory +0 MiB may be locked[^\n]*\n +→ ulimit -l/m);
  await bench.detach('xvda');
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE);
  t.match(await bench.fusetap(['attach', '--passthrough', 'on', `ram:${image}`]), {
    status: 6,
    stderr: /--passthrough/,
  });
  await bench.attach(`ram:${image}`, 'xvdr');
  t.match(await bench.list(), [{ passthrough: false }], 'auto is threads');
  const line = (pattern: RegExp): RegExp => new RegExp(`^fusetap: [^\\n]*${pattern.source}[^\\n]*\\n$`);
  const refusals: [words: string[], pattern: RegExp][] = [
    [['--uid', '0'], /only root/],
    [['--gid', '0'], /only root/],
    [['--allow-other', '--bus', 'hidden'], /has mode 0700: .*--bus DIR/],
  ];
  for (const [words, pattern] of refusals) {
    const outcome = await bench.fusetap(['attach', '-r', ...words, image]);
    t.match(outcome, { status: 5, stdout: '', stderr: line(pattern) }, words.join(' '));
  }
  await bench.detach('xvdr');
  // whether fuse.conf allows it, only root decides
  const isAllowed = (await bench.try('grep -q "^ *user_allow_other *$" /etc/fuse.conf')).status === 0;
  await chmod(bench.directory, 0o755);
  await bench.makeDirectory('bus');
  await t.test('--allow-other', { skip: isAllowed && '/etc/fuse.conf allows it' }, async (t) => {
    const outcome = await bench.fusetap(['attach', '--allow-other', '--bus', './bus', image]);
    t.match(outcome, { status: 5, stderr: line(/user_allow_other .*\/etc\/fuse\.conf/) });
  });
  t.same(await bench.traces(), []);
}

async function diagnose(t: Test, bench: Bench): Promise<void> {
  const { status, stdout } = await bench.fusetap(['doctor', '--json']);
  t.equal(status, 0, 'images can be attached');
  const { checks } = JSON.parse(stdout) as { checks: { name: string; ok: boolean; detail: string; hint: string }[] };
  const of = (name: string) => checks.find((check) => check.name === name);
  t.match(of('mount'), { ok: true, detail: /fusermount3/ });
  t.match(of('passthrough'), { ok: false, hint: 'run the bus as root' });
  t.match(of('loop-devices'), { ok: false, hint: /debugfs/ });
  t.match(of('allow-other'), { hint: /^$|user_allow_other/ });
}

async function letIn(t: Test, user: TestTransport): Promise<void> {
  const { runner: _, ...root } = user;
  const bench = await openBench(t, root);
  const image = await bench.image('disk.img', SIZE, SIZE);
  const asUser = (script: string, ...args: string[]) =>
    bench.execute(AS_USER[0] ?? '', [...AS_USER.slice(1), '--', 'sh', '-euc', script, 'sh', ...args]);
  await chmod(bench.directory, 0o700);
  t.match(await bench.fusetap(['attach', '--allow-other', image]), { status: 5, stderr: /0700.*--bus DIR/ });
  t.same(await bench.traces(), []);
  await chmod(bench.directory, 0o755);

  const closed = await bench.attach('-r', image);
  t.match(await asUser('ls "$1"', `${bench.runtimeDir}/bus/0`), { status: 2, stderr: /Permission denied/ });
  t.match(await asUser('cat "$1"', closed), { status: 1, stderr: /Permission denied/ });
  t.match(await bench.fusetap(['attach', '--allow-other', '-r', image]), {
    status: 4,
    stderr: /without --allow-other/,
  });
  t.match(await bench.fusetap(['start', '--allow-other']), { status: 4, stderr: /without --allow-other/ });
  await bench.detach('xvda');

  const owner = ['--gid', String(USER_ID), '--file-mode', '0640'];
  const open = await bench.attach('--allow-other', ...owner, `ram:${image}`);
  t.equal(await bench.sh('stat -c "%a %u %g" "$1"', open), `640 0 ${USER_ID}`);
  t.equal((await asUser('cmp "$1" "$2"', open, image)).status, 0, 'may read');
  t.match(await asUser(': <> "$1"', open), { status: 2, stderr: /Permission denied/ }, 'and not write');
  await bench.sh('chmod 0660 "$1"', open);
  t.equal((await asUser('echo changed 1<> "$1"', open)).status, 0, 'until he may');
  t.match(await info(bench), { allowOther: true });
  await bench.succeed(['reset', 'xvda']);
  t.equal(await bench.sh('stat -c "%a %u %g" "$1"', open), `660 0 ${USER_ID}`, 'a reset keeps whose it is');
  const other = await bench.attach('-r', image);
  t.match(await asUser('cat "$1"', other), { status: 1, stderr: /Permission denied/ }, 'a file without is the owner’s');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}
