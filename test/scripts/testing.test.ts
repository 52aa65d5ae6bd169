/**
 * The test runner, tried on small test files that fail in every way a file can: a runner that overlooks one of them
 * would let everything else go wrong unseen.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import { otherNodes } from '../../scripts/lib/test/nodes.js';
import { readStartTime } from '../../system/proc.js';
import { eventually } from '../e2e/command.js';

const dist = resolve(import.meta.dirname, '../..');
const root = resolve(dist, '..');

// they mostly wait
t.jobs = 4;

interface Outcome {
  status: number;
  lines: string[];
  last: string;
}

/**
 * Runs the runner over files given by name and text; `import t from 'tap'` is put before each text.
 * @param more `env` is added to the environment; `begun` is called with the runner's process
 */
async function runOver(
  t: Test,
  files: Record<string, string>,
  words: string[] = [],
  more: { env?: Record<string, string>; begun?: (runner: ChildProcess) => void } = {},
): Promise<Outcome> {
  const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const fake = join(directory, 'dist');
  await mkdir(join(fake, 'test'), { recursive: true });
  await cp(join(dist, 'scripts'), join(fake, 'scripts'), { recursive: true });
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
  await writeFile(join(directory, 'package.json'), '{"type":"module"}');
  for (const [name, text] of Object.entries(files)) {
    const file = join(fake, 'test', `${name}.test.js`);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `import t from 'tap';\n${text}\n`);
  }
  return new Promise((resolve) => {
    const options = { env: { ...process.env, ...more.env } };
    const runner = execFile(
      process.execPath,
      [join(fake, 'scripts/lib/test/run.js'), ...words],
      options,
      (error, stdout) => {
        const lines = stdout.trimEnd().split('\n');
        resolve({ status: typeof error?.code === 'number' ? error.code : 0, lines, last: lines.at(-1) ?? '' });
      },
    );
    more.begun?.(runner);
  });
}

t.test('passes and skips are counted, and skips told with their reason', { buffered: true }, async (t) => {
  const { status, last, lines } = await runOver(t, {
    plain: "t.pass('one'); t.test('inner', async (t) => { t.pass('two'); t.pass('three'); });",
    skips: "t.pass('one'); t.test('needs fio', { skip: 'fio is not installed' }, async () => {});",
    whole: "t.plan(0, 'no /dev/fuse here');",
  });
  t.equal(last, '4 passed, 0 failed, 2 skipped');
  t.equal(status, 0);
  t.ok(lines.includes('  test/skips.test.ts: needs fio: fio is not installed'));
  t.ok(lines.includes('  test/whole.test.ts: the whole file: no /dev/fuse here'));
});

t.test('a file that needs the machine for itself runs first and alone', { buffered: true }, async (t) => {
  const { path: scratch, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const log = (word: string) => `require('node:fs').appendFileSync('${scratch}/log', '${word} ');`;
  const text = (name: string) =>
    `import { createRequire } from 'node:module'; const require = createRequire('/'); ${log(`${name}+`)}
     await new Promise((resolve) => setTimeout(resolve, 300)); ${log(`${name}-`)} t.pass('here');`;
  const files = { a: text('a'), 'b.alone': text('b'), 'c.alone': text('c'), d: text('d') };
  t.equal((await runOver(t, files, ['--jobs', '4'])).status, 0);
  t.match(await readFile(join(scratch, 'log'), 'utf8'), /^b\+ b- c\+ c- [ad]\+ /);
});

t.test('failures of every kind fail the run', { buffered: true }, async (t) => {
  const cases: Record<string, { text: string; told: RegExp }> = {
    assertion: { text: "t.test('a', async (t) => { t.equal(1, 2, 'sums'); });", told: /a > sums/ },
    thrown: { text: "t.test('a', async () => { throw new Error('burnt'); });", told: /burnt/ },
    plan: { text: "t.test('a', (t) => { t.plan(2); t.pass('x'); t.end(); });", told: /plan/ },
    nothing: { text: '', told: /no test ran/ },
    silent: { text: 'process.exit(0);', told: /no test ran/ },
    one: { text: "t.pass('x'); process.on('exit', () => { process.exitCode = 1; });", told: /ended badly/ },
    status: { text: "t.pass('x'); process.on('exit', () => { process.exitCode = 7; });", told: /exit status 7/ },
    killed: { text: "t.pass('x'); process.kill(process.pid, 'SIGKILL');", told: /ended by SIGKILL/ },
    syntax: { text: 'const = 1;', told: /SyntaxError/ },
  };
  const files = Object.fromEntries(Object.entries(cases).map(([name, { text }]) => [name, text]));
  const { status, last, lines } = await runOver(t, { ...files, good: "t.pass('fine');" });
  t.equal(status, 1);
  t.match(last, /^\d+ passed, 9 failed, 0 skipped$/);
  for (const [name, { told }] of Object.entries(cases)) {
    const start = lines.findIndex((line) => line.startsWith(`FAIL test/${name}.test.ts`));
    const after = lines.slice(start + 1);
    const report = after.slice(
      0,
      after.findIndex((line) => /^(ok|FAIL|failed:)/.test(line)),
    );
    t.not(start, -1, `${name} is told`);
    t.match(report.join('\n'), told, `${name} says why`);
  }
});

t.test('a file that hangs is killed with its children', { buffered: true }, async (t) => {
  const { status, last, lines } = await runOver(
    t,
    {
      hangs: `import { spawn } from 'node:child_process';
        spawn('sleep', ['1000']);
        t.pass('x');
        for (;;);`,
    },
    // long enough for a slow machine to load tap
    ['--timeout', '8'],
  );
  t.equal(status, 1);
  t.equal(last, '1 passed, 1 failed, 0 skipped');
  t.match(lines.join('\n'), /ran longer than 8 s and was killed/);
});

t.test('a process that outlives its file is a failure, and is ended', { buffered: true }, async (t) => {
  const { status, lines } = await runOver(t, {
    leaves: `import { spawn } from 'node:child_process';
      const child = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
      child.unref();
      t.pass('pid ' + child.pid);
      console.log('the pid is ' + child.pid);`,
  });
  t.equal(status, 1);
  const pid = Number(/left behind: process (\d+): sleep 1000/.exec(lines.join('\n'))?.[1]);
  t.ok(pid > 1);
  // nobody may be there to reap it
  t.equal(readStartTime(pid), null, 'it has ended');
});

const isRoot = process.getuid?.() === 0;
t.test(
  'a mount that outlives its file is a failure, and is taken away',
  {
    buffered: true,
    skip: isRoot ? false : 'only root can mount',
  },
  async (t) => {
    const { status, lines } = await runOver(t, {
      leaves: `import { execFileSync } from 'node:child_process';
      import { mkdirSync } from 'node:fs';
      mkdirSync(process.env.TMPDIR + '/mnt');
      execFileSync('mount', ['-t', 'tmpfs', 'none', process.env.TMPDIR + '/mnt']);
      t.pass('x');`,
    });
    t.equal(status, 1);
    const path = /left behind: mount of type tmpfs at (\S+)/.exec(lines.join('\n'))?.[1];
    t.ok(path);
    t.notMatch(execFileSync('cat', ['/proc/self/mountinfo'], { encoding: 'utf8' }), ` ${path} `);
  },
);

t.test('the quick part runs on every Node; a Node that is not there is a failure', { buffered: true }, async (t) => {
  const { path: cache, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const env = { XDG_CACHE_HOME: cache };
  const files = { 'system/quick': "t.pass('x');", slow: "t.pass('x');" };
  const others = otherNodes();
  t.ok(others.length >= 2, 'there are others on this machine');

  const without = await runOver(t, files, [], { env });
  t.equal(without.last, `2 passed, ${others.length} failed, 0 skipped`);
  t.match(without.lines.join('\n'), /FAIL Node 2\d\.\S+ .*\n.*does not exist: scripts\/setup --nodes fetches it/);
  t.equal(
    (await runOver(t, files, ['slow'], { env })).last,
    '1 passed, 0 failed, 0 skipped',
    'a pattern: on this Node only',
  );

  for (const node of others) {
    const program = join(cache, 'fusetap/node', `${node.version}-${process.arch}`, 'node');
    await mkdir(dirname(program), { recursive: true });
    await writeFile(program, `#!/bin/sh\nexec "${process.execPath}" "$@"\n`, { mode: 0o755 });
  }
  const whole = await runOver(t, files, [], { env });
  t.equal(whole.last, `${2 + others.length} passed, 0 failed, 0 skipped`);
  for (const { version } of others)
    t.match(whole.lines.join('\n'), `test/system/quick.test.ts (Node ${version})  1 passed`);
  t.equal((await runOver(t, files, ['--quick'], { env })).last, `${1 + others.length} passed, 0 failed, 0 skipped`);
  const major = others[0]?.version.split('.')[0] ?? '';
  t.equal((await runOver(t, files, ['--node', major, 'slow'], { env })).last, '1 passed, 0 failed, 0 skipped');
});

t.test('a pattern chooses files; one that chooses none is a failure', { buffered: true }, async (t) => {
  const files = { alpha: "t.pass('x');", beta: "t.fail('x');" };
  const some = await runOver(t, files, ['alpha']);
  t.equal(some.status, 0);
  t.equal(some.last, '1 passed, 0 failed, 0 skipped');
  const none = await runOver(t, files, ['gamma']);
  t.equal(none.status, 2);
  t.match(none.lines[0], /no test file has 'gamma'/);
});

/** A test file that never ends, and leaves a process and as root a mount. It writes their names to a file when they exist. */
const ENDLESS = (ready: string): string => `
  import { execFileSync, spawn } from 'node:child_process';
  import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
  const child = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' });
  const mount = process.env.TMPDIR + '/mnt';
  mkdirSync(mount);
  if (process.getuid() === 0) execFileSync('mount', ['-t', 'tmpfs', 'none', mount]);
  t.pass('x');
  writeFileSync('${ready}.new', JSON.stringify({ pids: [process.pid, child.pid], mount }));
  renameSync('${ready}.new', '${ready}');
  setInterval(() => {}, 1000);
  await new Promise(() => {});`;

const SIGNALS = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const;

for (const [signal, status] of SIGNALS) {
  t.test(`${signal} ends a run at once`, { buffered: true }, async (t) => {
    const ready = join((await temporaryDirectory()).path, 'ready');
    const files = { 'a-ended': "t.pass('x');", 'b-endless': ENDLESS(ready), 'c-not-run': "t.fail('it was run');" };
    let runner: ChildProcess | undefined;
    const outcome = runOver(t, files, ['--jobs', '1'], {
      begun: (child) => {
        runner = child;
      },
    });
    const read = (): Promise<string | undefined> => readFile(ready, 'utf8').catch(() => undefined);
    const { pids, mount } = JSON.parse(await eventually('the file that never ends', 60_000, read)) as {
      pids: number[];
      mount: string;
    };
    runner?.kill(signal);
    // a second one does not interrupt the removal
    runner?.kill(signal);
    const { status: exit, lines, last } = await outcome;
    t.equal(exit, status);
    t.equal(last, '1 passed, 0 failed, 0 skipped');
    const told = lines.slice(lines.indexOf(`ended by ${signal}; not run to their end:`));
    t.same(told.slice(1, 3), ['  test/b-endless.test.ts', '  test/c-not-run.test.ts']);
    t.notMatch(lines.join('\n'), /FAIL/);
    for (const pid of pids) t.equal(readStartTime(pid), null, `process ${pid} has ended`);
    t.notMatch(await readFile('/proc/self/mountinfo', 'utf8'), ` ${mount} `);
  });

  t.test(`${signal} ends scripts/test while it sets up`, { buffered: true }, async (t) => {
    const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
    t.teardown(cleanup);
    await mkdir(join(directory, 'scripts'));
    await cp(join(root, 'scripts/test'), join(directory, 'scripts/test'));
    // npm has children, too
    const setup = '#!/bin/sh\nsleep 1000 &\necho $$ $! > pids.new\nmv pids.new pids\nwait\n';
    await writeFile(join(directory, 'scripts/setup'), setup, { mode: 0o755 });
    const child = spawn(join(directory, 'scripts/test'), { stdio: ['ignore', 'pipe', 'inherit'] });
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      printed += text;
    });
    const read = (): Promise<string | undefined> => readFile(join(directory, 'pids'), 'utf8').catch(() => undefined);
    const pids = (await eventually('the setup', 60_000, read)).trim().split(' ').map(Number);
    child.kill(signal);
    t.same(await once(child, 'close'), [status, null]);
    t.match(printed, `test: ended by ${signal} before any test ran\n\n0 passed, 0 failed, 0 skipped\n`);
    for (const pid of pids) t.equal(readStartTime(pid), null, `process ${pid} has ended`);
  });
}
