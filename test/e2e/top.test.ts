/**
 * `fusetap top` and `stats --interval` over a real bus, during fio and the death of a server, and what they leave of the
 * terminal.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Terminal } from '../../scripts/lib/first-hour/terminal.js';
import { collect, eventually } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill, killServer } from './kill-server.js';

t.setTimeout(300_000);

const SIZE = 16 << 20;
const COMMON = [
  '--ioengine=psync',
  '--direct=1',
  '--bs=4k',
  `--size=${SIZE}`,
  '--allow_file_create=0',
  '--output-format=json',
];

async function terminalOf(t: Test, bench: Bench, columns = 110): Promise<Terminal> {
  const { env } = bench.options();
  const command = ['bash', '--norc', '--noprofile'];
  const terminal = await Terminal.open({
    command,
    cwd: bench.directory,
    env: { ...process.env, PS1: '$ ', ...env },
    columns,
  });
  t.teardown(() => terminal.close());
  await terminal.waitForLine(/\$$/);
  return terminal;
}

/** Types the command; its pid is then in the file `pid`, and what stty(1) said before and after in two more. */
async function startTop(bench: Bench, terminal: Terminal, ...words: string[]): Promise<void> {
  const top = `sh -c 'echo $$ >pid; exec "$@"' sh '${process.execPath}' '${bench.program}' top ${words.join(' ')}`;
  await terminal.type(`clear; rm -f after; echo MARK; stty -a >before; ${top}; echo status $?; stty -a >after`);
  await terminal.press('Enter');
  await terminal.waitFor('the table', (lines) => lines.some((line) => /^BUS +VDEV/.test(line)));
}

/** The terminal is as it was. */
async function isRestored(t: Test, bench: Bench, terminal: Terminal, status: number): Promise<void> {
  await terminal.waitFor('the end', (lines) => lines.includes(`status ${status}`));
  await terminal.waitForLine(/\$$/);
  t.ok((await terminal.screen()).includes('MARK'), 'what was on the screen before is there again');
  t.same(await terminal.modes(), { isSecondScreen: false, hasCursor: true });
  const read = (name: string): Promise<string> => readFile(bench.path(name), 'utf8');
  t.equal(await read('after'), await read('before'), 'stty says the same');
}

/** The cells of a row of a table on the screen, by the heads of the table. */
function cellsOf(lines: readonly string[], row: RegExp): Record<string, string> {
  const at = lines.findLastIndex((line) => row.test(line));
  const head = lines.slice(0, at).findLast((line) => /^BUS /.test(line)) ?? '';
  // figures are aligned to the right: the cell ends where the head ends
  const cells = (lines[at] ?? '').split(/ {2,}/);
  return Object.fromEntries(head.split(/ {2,}/).map((name, i) => [name, cells[i] ?? '']));
}

interface Group {
  readonly seconds: number;
  readonly vbds: readonly Record<'read' | 'write', { perSecond: number; latencyUs: { p99: number | null } }>[];
}

type Story = (t: Test, bench: Bench) => Promise<void>;

/** Each begins on a bench of its own. */
const STORIES: Record<string, Story> = {
  'the figures on the screen are those of fio; a killed server is seen, and the screen goes on': watchFio,
  'the terminal is restored after signals, and when the bus was killed': restoreTerminal,
  'all intervals together have all requests of fio': sumIntervals,
  'once, for scripts; and what is wrong': printOnce,
};

onDefaultTransport(t, ['fio', 'tmux', 'bash'], async (t, transport) => {
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => await story(t, await openBench(t, transport)));
  }
});

async function watchFio(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE));
  const terminal = await terminalOf(t, bench);
  await startTop(bench, terminal, '--interval 2');
  const rate = ['--rw=randread', '--rate_iops=100', '--time_based', '--runtime=600'];
  const fio = bench.startProgram('fio', ['--name=x', `--filename=${vbd}`, ...COMMON, ...rate], { timeoutMs: 280_000 });
  const outcome = collect(fio);
  const isRight = (lines: readonly string[]): boolean => {
    const { 'R/S': reads, 'W/S': writes } = cellsOf(lines, /^0 +xvda/);
    return Math.abs(Number(reads) - 100) <= 10 && Number(writes) === 0;
  };
  await terminal.waitFor('100 reads per second, within 10 %', isRight);
  t.match(cellsOf(await terminal.screen(), /^0 +xvda/).P50, /^[\d.]+(us|ms|s)$/);
  await killServer(bench);
  const restarts = (lines: readonly string[]): string => cellsOf(lines, /^0 +(running|restarting)/).RESTARTS ?? '';
  await terminal.waitFor('the replacement', (lines) => restarts(lines).startsWith('1'));
  await terminal.waitFor('the same rate with the next server', isRight);
  await useKeys(terminal);
  await isRestored(t, bench, terminal, 0);
  fio.kill('SIGINT');
  await outcome;
}

/** A narrow window, the help, a pause, and the end. */
async function useKeys(terminal: Terminal): Promise<void> {
  await terminal.resize(34, 10);
  await terminal.waitFor('fewer columns', (lines) => {
    const head = lines.find((line) => /^(BUS +)?VDEV/.test(line)) ?? '';
    return head.includes('P99') && !head.includes('IMAGE') && lines.every((line) => line.length <= 34);
  });
  await terminal.resize(110, 24);
  await terminal.press('h');
  await terminal.waitFor('the help', (lines) => lines.some((line) => /^q +quit/.test(line)));
  await terminal.press('h');
  await terminal.press('p');
  await terminal.waitFor('the pause', (lines) => lines[0]?.startsWith('PAUSED') === true);
  await terminal.press('q');
}

async function restoreTerminal(t: Test, bench: Bench): Promise<void> {
  await bench.attach(await bench.image('disk.img', SIZE));
  const terminal = await terminalOf(t, bench);
  for (const [signal, status] of [
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGINT', 130],
  ] as const) {
    await startTop(bench, terminal);
    process.kill(Number(await readFile(bench.path('pid'), 'utf8')), signal);
    await isRestored(t, bench, terminal, status);
  }
  await startTop(bench, terminal, '--interval 0.2');
  await terminal.press('C-z');
  await terminal.waitFor('the shell', (lines) => lines.some((line) => /Stopped/.test(line)));
  t.same(await terminal.modes(), { isSecondScreen: false, hasCursor: true }, 'while it is stopped');
  await terminal.type('fg');
  await terminal.press('Enter');
  await terminal.waitFor('the table again', (lines) => /every 0.2 s/.test(lines[0] ?? ''));
  const { keeperPid, serverPid } = await busInfo(bench);
  for (const pid of [keeperPid, serverPid]) if (pid !== null) kill(pid);
  await terminal.waitFor('the dead bus', (lines) => /dead|not-answering|no bus runs/.test(lines.join('\n')));
  await terminal.press('q');
  await terminal.waitFor(
    'the end',
    (lines) => lines.some((line) => /^status \d/.test(line)) || /\$$/.test(lines.at(-1) ?? ''),
  );
  t.same(await terminal.modes(), { isSecondScreen: false, hasCursor: true });
  await bench.fusetap(['stop', '--force']);
}

async function sumIntervals(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE));
  const stats = bench.startFusetap(['stats', 'xvda', '--interval', '0.2', '--json'], { timeoutMs: 200_000 });
  const printed = collect(stats);
  // its first look, which all others are compared with, was before this
  if (stats.stdout !== null) await once(stats.stdout, 'data');
  const amount = ['--rw=randrw', '--number_ios=4000', '--rate_iops=1000'];
  const fio = await bench.execute('fio', ['--name=x', `--filename=${vbd}`, ...COMMON, ...amount], {
    timeoutMs: 200_000,
  });
  t.equal(fio.status, 0, fio.stderr);
  const [job] = (
    JSON.parse(fio.stdout.slice(fio.stdout.indexOf('{'))) as { jobs: Record<string, { total_ios: number }>[] }
  ).jobs;
  await eventually('the counts of the last requests', 60_000, async () => {
    const { stdout } = await bench.fusetap(['stats', '--json']);
    const [vbd] = JSON.parse(stdout) as { write: { requests: number } }[];
    return vbd !== undefined && vbd.write.requests >= (job?.write?.total_ios ?? 0);
  });
  // one more interval has the rest
  await delay(500);
  stats.kill('SIGINT');
  const { stdout, signal, status } = await printed;
  t.same([status, signal], [130, null], 'SIGINT ends it, as it ends iostat');
  const groups = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Group);
  for (const kind of ['read', 'write'] as const) {
    const wanted = job?.[kind]?.total_ios ?? 0;
    const sum = groups.reduce((total, { seconds, vbds }) => total + seconds * (vbds[0]?.[kind].perSecond ?? 0), 0);
    t.ok(wanted > 100);
    t.ok(Math.abs(sum - wanted) <= wanted / 10, `${kind}: ${sum} of ${wanted}`);
  }
  const busy = groups.filter(({ vbds }) => (vbds[0]?.read.perSecond ?? 0) > 0);
  t.ok(busy.every(({ vbds }) => (vbds[0]?.read.latencyUs.p99 ?? 0) > 0));
  const count = await bench.fusetap(['stats', '--interval', '0.1', '--count', '2']);
  t.equal(count.status, 0);
  t.equal(count.stdout.match(/^BUS +VDEV +KIND +REQ\/S/gm)?.length, 2);
}

async function printOnce(t: Test, bench: Bench): Promise<void> {
  await bench.attach(await bench.image('a "b\\日本.img', SIZE));
  await bench.attach('--bus', 'other', await bench.image('b.img', SIZE));
  // not a terminal: once
  const plain = await bench.fusetap(['top', '--interval', '0.1']);
  t.match(plain, { status: 0, stderr: '' });
  t.match(plain.stdout, /^BUS +STATE[\s\S]*\n\nBUS +VDEV/);
  t.match(plain.stdout, 'a "b\\日本.img');
  t.notOk(plain.stdout.includes('\x1b'));
  const json = JSON.parse(await bench.succeed(['top', '--once', '--interval', '0.1', '--json'])) as {
    buses: unknown[];
  };
  t.match(json.buses, [
    { bus: '0', state: 'running', trouble: null, server: { pid: Number }, vbds: [{ vdev: 'xvda', perSecond: 0 }] },
    { bus: 'other', vbds: [{ vdev: 'xvda' }] },
  ]);
  const one = JSON.parse(await bench.succeed(['top', '--bus', 'other', '--interval', '0.1', '--json'])) as typeof json;
  t.equal(one.buses.length, 1);
  for (const words of [
    ['top', '--interval', '0'],
    ['stats', '--interval', 'x'],
    ['stats', '--count', '2'],
    ['top', '--sort', 'x'],
  ]) {
    t.match(await bench.fusetap(words), { status: 2, stdout: '' }, words.join(' '));
  }
  t.match(await bench.fusetap(['stats', '--bus', 'none', '--interval', '1']), { status: 3 });
}
