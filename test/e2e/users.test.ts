/**
 * What is particular to who is not root, and to other users on a bus: who is let in, what is refused and how, and that
 * the bus of a user survives what root's does, and goes when its processes are gone.
 */
import { chmod } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { collect, eventually, execute, start } from './command.js';
import {
  type Bench,
  forEachWay,
  JUST_NAMESPACE,
  JUST_USER,
  openBench,
  type TestTransport,
  withRoot,
} from './fixtures.js';
import { busInfo } from './kill-server.js';
import { AS_USER, permitAllowOther, USER_ID, whyNotPermitted } from './runners.js';

t.setTimeout(360_000);

const SIZE = 4 << 20;
/** somebody else yet, who is in no list of users */
const THIRD_USER_ID = 65_533;

forEachWay(t, JUST_USER, async (t, transport) => {
  const tell = async (name: string, body: (t: Test, bench: Bench) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => body(t, await openBench(t, transport)));
  };
  await tell('nobody else is let in, not even root', shutOut);
  await tell('an upgrade, and the keeper is killed', survive);
  await tell('buffers that cannot be locked', doWithoutLocks);
  await tell('what only root can have', refuse);
  await tell('doctor', diagnose);
  await t.test('root lets others in', (t) => letIn(t, transport));
  await t.test('a user lets others in', { skip: whyNotPermitted() }, (t) => letInByUser(t, transport));
});

forEachWay(t, JUST_NAMESPACE, async (t, transport) => {
  const bench = await openBench(t, transport);
  await t.test('an upgrade, and the keeper is killed', (t) => survive(t, bench));
  await t.test('what only root can have', (t) => refusePassthrough(t, bench));
  await t.test('--allow-other is not refused', (t) => allowInNamespace(t, bench));
});

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
  const vbd = await bench.attach(await bench.image('disk.img', SIZE, SIZE));
  const { keeperPid, serverPid } = await busInfo(bench);
  await bench.succeed(['upgrade']);
  await bench.sh('cmp "$1" disk.img', vbd);
  const upgraded = await busInfo(bench);
  t.match(upgraded, { state: 'running', keeperPid });
  t.not(upgraded.serverPid, serverPid);

  process.kill(keeperPid ?? 0, 'SIGKILL');
  // between the keeper's end and the server's answer nobody listens
  const state = () =>
    busInfo(bench).then(
      (bus) => bus.state,
      () => null,
    );
  await eventually('an orphan', 20_000, async () => (await state()) === 'orphaned');
  t.match(await bench.fusetap(['ls']), { stdout: /orphaned/ });
  await bench.sh('cmp "$1" disk.img', vbd);
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

async function doWithoutLocks(t: Test, bench: Bench): Promise<void> {
  await bench.image('disk.img', SIZE, SIZE);
  const limited = 'ulimit -l 64; exec "$@"';
  const fusetap = [process.execPath, bench.program];
  const vbd = await bench.sh(limited, ...fusetap, 'attach', 'disk.img');
  await bench.sh('cmp "$1" disk.img', vbd);
  const { serverPid } = await busInfo(bench);
  t.match(await bench.sh('grep "locked memory" "/proc/$1/limits"', `${serverPid}`), /65536/, 'the limit holds');
  const doctor = await bench.sh(limited, ...fusetap, 'doctor');
  t.match(doctor, /^- locked-memory +0 MiB may be locked[^\n]*\n +→ ulimit -l/m);
  await bench.detach('xvda');
}

async function refusePassthrough(t: Test, bench: Bench): Promise<string> {
  const image = await bench.image('disk.img', SIZE);
  t.match(await bench.fusetap(['attach', '--passthrough', 'on', `ram:${image}`]), {
    status: 6,
    stderr: /--passthrough/,
  });
  await bench.attach(`ram:${image}`, 'xvdr');
  t.match(await bench.list(), [{ passthrough: false }], 'auto is threads');
  await bench.detach('xvdr');
  t.same(await bench.traces(), []);
  return image;
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  const image = await refusePassthrough(t, bench);
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
    bench.execute(AS_USER[0], [...AS_USER.slice(1), 'sh', '-euc', script, 'sh', ...args]);
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
  t.match(await busInfo(bench), { allowOther: true });
  await bench.succeed(['reset', 'xvda']);
  t.equal(await bench.sh('stat -c "%a %u %g" "$1"', open), `660 0 ${USER_ID}`, 'a reset keeps whose it is');
  const other = await bench.attach('-r', image);
  t.match(await asUser('cat "$1"', other), { status: 1, stderr: /Permission denied/ }, 'a file without is the owner’s');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

/** Who else there is in the namespace may come in; of one without further users only that it works can be seen. */
async function allowInNamespace(t: Test, bench: Bench): Promise<void> {
  await chmod(bench.directory, 0o755);
  const bus = await bench.makeDirectory('bus');
  const image = await bench.image('open.img', SIZE, SIZE);
  const vbd = await bench.attach('--bus', bus, '--allow-other', '--file-mode', '0644', image);
  t.match(await busInfo(bench, bus), { allowOther: true });
  t.equal(
    await bench.sh('cmp "$1" "$2"; stat -c %a "$1"; grep -c " $3 .*allow_other" /proc/self/mountinfo', vbd, image, bus),
    '644\n1',
  );
  await bench.detach('--bus', bus, 'xvda');
  t.same(await bench.traces(), []);
}

/** Root and a third user come to a vbd of a user whom fuse.conf lets ask for that; its mode says what each may. */
async function letInByUser(t: Test, user: TestTransport): Promise<void> {
  const { runner, wordsAs } = await permitAllowOther();
  const bench = await openBench(t, { ...user, runner });
  const as = (userId: number, script: string, ...args: string[]) =>
    execute(...wordsAs(userId, 'sh', ['-euc', script, 'sh', ...args]), bench.options());
  await chmod(bench.directory, 0o755);
  const image = await bench.image('disk.img', SIZE, SIZE);

  const bus = await bench.makeDirectory('bus');
  const open = await bench.attach('--bus', bus, '--allow-other', '--file-mode', '0666', image);
  const closed = await bench.attach('--bus', bus, await bench.image('closed.img', SIZE));
  t.match(await busInfo(bench, bus), { allowOther: true });
  for (const userId of [0, THIRD_USER_ID]) {
    t.match(await as(userId, 'cmp "$1" "$2"', open, image), { status: 0, stderr: '' }, `${userId} reads`);
  }
  t.equal((await as(0, 'head -c 1 "$1"', closed)).status, 0, 'no mode keeps root out');
  const denied = { status: 1, stderr: /Permission denied/ };
  t.match(await as(THIRD_USER_ID, 'head -c 1 "$1"', closed), denied, 'a file without is the owner’s');
  t.equal((await as(THIRD_USER_ID, 'echo changed 1<> "$1"', open)).status, 0, 'and writes');
  t.equal(await bench.sh('head -c 7 "$1"', image), 'changed');

  const holder = start(...wordsAs(THIRD_USER_ID, 'sh', ['-euc', 'exec 3< "$1"; echo open; read -r _', 'sh', open]));
  const end = collect(holder);
  t.teardown(() => void holder.stdin?.end());
  await new Promise((resolve) => holder.stdout?.once('data', resolve));
  t.match(await bench.fusetap(['detach', open]), { status: 4, stderr: /in use/ }, 'who holds it keeps it');
  holder.stdin?.end('\n');
  await end;
  await bench.detach('--wait', '20', open);
  await bench.succeed(['stop', '--bus', bus]);
  t.same(await bench.traces(), []);
}
