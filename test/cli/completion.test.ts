/**
 * Completion for a user: the real shells complete a line, and ask the real program, which asks a bus. The answers of the
 * program are also tested without a shell.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { splitLine } from '../../cli/completion/split-line.js';
import { COMMANDS } from '../../cli/program.js';
import { isInstalled } from '../e2e/command.js';
import { aBus, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

const PROGRAM = fileURLToPath(new URL('../../cli/main.js', import.meta.url));

interface Stage {
  readonly directory: string;
  readonly runtime: string;
}

/** Two buses, some files, and a `fusetap` that completes, but else only writes down how it was called. */
async function prepare(t: Test): Promise<Stage> {
  const directory = tempDir(t);
  const runtime = join(directory, 'runtime');
  const vbds = { 0: ['xvda', 'xvdb'], two: ['xvdz'] };
  for (const [bus, vdevs] of Object.entries(vbds)) {
    const infos = vdevs.map((vdev) => aVbd({ bus, vdev }));
    await fakeBus(t, runtime, bus, () => aBus(bus, infos));
  }
  const files = join(directory, 'files');
  mkdirSync(join(files, 'images/deep'), { recursive: true });
  for (const file of ['golden.img', 'disk one.img', 'images/deep.img']) writeFileSync(join(files, file), '');
  const script = `#!/bin/sh
case $1 in
  __complete | completion) exec '${process.execPath}' '${PROGRAM}' "$@" ;;
  *) printf '%s\\n' "$@" >'${directory}/called' ;;
esac
`;
  writeFileSync(join(directory, 'fusetap'), script);
  chmodSync(join(directory, 'fusetap'), 0o755);
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { stdout } = await fusetap(runtime, ['completion', shell]);
    writeFileSync(join(directory, `completion.${shell}`), stdout);
  }
  return { directory, runtime };
}

/** What the program answers for words: what the shell adds, the front of the word, its rest, and the words offered. */
async function ask(runtime: string, words: readonly string[], env = {}): Promise<[string[], string[]]> {
  const { status, stdout, stderr } = await fusetap(runtime, ['__complete', '--', ...words], env);
  t.same([status, stderr], [0, '']);
  const [adds = '', kept = '', rest = '', ...offered] = stdout.replace(/\n$/, '').split('\n');
  return [[adds, kept, rest], offered.map((line) => line.replace(/\t.*/, ''))];
}

const ANSWERS: [line: string[], adds: string[], offered: string[]][] = [
  [['det'], ['words', '', 'det'], ['detach']],
  [
    ['detach', ''],
    ['files', '', ''],
    ['xvda', 'xvdb'],
  ],
  [['detach', '--wait', '5', 'xvda', 'xv'], ['files', '', 'xv'], ['xvdb']],
  [['--bus', 'two', 'detach', ''], ['files', '', ''], ['xvdz']],
  [['detach', '--bus=two', ''], ['files', '', ''], ['xvdz']],
  [
    ['show', '--bus', ''],
    ['directories', '', ''],
    ['0', 'two'],
  ],
  [['show', '--bus=t'], ['directories', '--bus=', 't'], ['--bus=two']],
  [['attach', 'r'], ['files', '', 'r'], ['ram:']],
  [['attach', 'ram:'], ['files', 'ram:', ''], []],
  [['attach', 'tap:ram:go'], ['files', 'tap:ram:', 'go'], []],
  [['attach', '--image=go'], ['files', '--image=', 'go'], []],
  [['attach', 'a.img', 'ram:go'], ['files', 'ram:', 'go'], []],
  [
    ['run', '--mode', ''],
    ['words', '', ''],
    ['r', 'w', 'w!'],
  ],
  [
    ['attach', 'disk.img', 'xv'],
    ['files', '', 'xv'],
    ['xvdc', 'xvdd', 'xvde', 'xvdf', 'xvdg', 'xvdh'],
  ],
  [
    ['attach', 'disk.img', 'xvda', ''],
    ['files', '', ''],
    ['r', 'w', 'w!'],
  ],
  [
    ['attach', '--file-mode', ''],
    ['words', '', ''],
    ['0600', '0640', '0644', '0660'],
  ],
  [['attach', '--driver', 's'], ['files', '', 's'], ['sync']],
  [
    ['attach', '--passthrough', ''],
    ['words', '', ''],
    ['auto', 'on', 'off'],
  ],
  [['attach', '--filter', 'd'], ['words', '', 'd'], ['delay=']],
  [['block-detach', 'two', ''], ['words', '', ''], ['xvdz']],
  [['block-attach', 't'], ['directories', '', 't'], ['two']],
  [
    ['completion', ''],
    ['words', '', ''],
    ['bash', 'zsh', 'fish'],
  ],
  [['slot', ''], ['words', '', ''], []],
  [['create', 'x.img', ''], ['words', '', ''], []],
  [['run', 'ram:x', '--', 'ls', '-'], ['command', '3', ''], []],
  [['bogus', ''], ['words', '', ''], []],
];

t.test('what the program answers', async (t) => {
  const { runtime } = await prepare(t);
  for (const [words, adds, offered] of ANSWERS) {
    t.same(await ask(runtime, words), [adds, offered], words.join(' '));
  }
  t.same((await ask(runtime, ['detach', ''], { FUSETAP_BUS: 'two' }))[1], ['xvdz'], 'the bus of the environment');
  const [, all] = await ask(runtime, ['']);
  for (const name of [...Object.keys(COMMANDS), '--bus', '--help']) t.ok(all.includes(name), name);
  const [, options] = await ask(runtime, ['attach', '-']);
  for (const flag of ['--driver', '-r', '--json', '--help']) t.ok(options.includes(flag), flag);
  t.notOk(all.includes('__complete'), 'it is no command of its own');
});

t.test('nobody answers, nothing is offered', async (t) => {
  const runtime = tempDir(t);
  t.same(await ask(runtime, ['detach', '']), [['files', '', ''], []]);
  t.same(await ask(runtime, ['umount', '']), [['words', '', ''], []]);
  await fakeBus(t, runtime, '0', () => undefined);
  t.same((await ask(runtime, ['detach', '']))[1], [], 'a bus that says nothing is not waited for');
});

t.test("a line of a shell's", async (t) => {
  const lines: [string, string[]][] = [
    ['fusetap ', ['fusetap', '']],
    ['fusetap detach  xv', ['fusetap', 'detach', 'xv']],
    ['fusetap attach ram:disk\\ one', ['fusetap', 'attach', 'ram:disk one']],
    [`fusetap attach 'a b'"c \\"d\\" '"e ''`, ['fusetap', 'attach', `a bc "d" 'e`, '']],
    ['fusetap attach "ram:disk o', ['fusetap', 'attach', 'ram:disk o']],
    ['fusetap attach x\\', ['fusetap', 'attach', 'x\\']],
  ];
  for (const [line, words] of lines) t.same(splitLine(line), words, line);
});

/** A line as it is typed, with the Tab, and the words that the program is then called with. */
const TYPED: [line: string, called: string[]][] = [
  ['det\tx', ['detach', 'x']],
  ['detach xvda xv\t', ['detach', 'xvda', 'xvdb']],
  ['--bus two detach x\t', ['--bus', 'two', 'detach', 'xvdz']],
  ['attach ram:go\t', ['attach', 'ram:golden.img']],
  ['attach ra\tgo\t', ['attach', 'ram:golden.img']],
  ['attach go\t', ['attach', 'golden.img']],
  ['attach ram:disk\t', ['attach', 'ram:disk one.img']],
  ['attach aio:images/deep.\t', ['attach', 'aio:images/deep.img']],
  ['attach --driver sy\t', ['attach', '--driver', 'sync']],
  ['show --bus=tw\t', ['show', '--bus=two']],
  ['run ram:x -- cat gol\t', ['run', 'ram:x', '--', 'cat', 'golden.img']],
];

const SHELLS: Record<string, { start: string; words: string }> = {
  bash: { start: 'source "$STAGE/completion.bash"', words: '--norc -i' },
  zsh: { start: 'autoload -U compinit; compinit -u -D; source "$STAGE/completion.zsh"', words: '-f -i' },
};

/** Types into a shell on a terminal, line by line, and gives what `fusetap` was called with each time. */
async function type(t: Test, { directory, runtime }: Stage, shell: string): Promise<string[][]> {
  const { start, words } = SHELLS[shell] as { start: string; words: string };
  const env = { ...process.env, ...{ PATH: `${directory}:${process.env.PATH}`, HOME: directory, STAGE: directory } };
  const options = { cwd: join(directory, 'files'), env: { ...env, FUSETAP_RUNTIME_DIR: runtime, TERM: 'dumb' } };
  const command = ['--quiet', '--flush', '--return', '--command', `${shell} ${words}`, '/dev/null'];
  const terminal = spawn('script', command, { ...options, stdio: ['pipe', 'pipe', 'inherit'] });
  let shown = '';
  terminal.stdout.on('data', (data: Buffer) => {
    shown += data.toString();
  });
  t.teardown(() => terminal.kill('SIGKILL'));
  const called: string[][] = [];
  try {
    for (const line of [`${start}; fusetap began`, ...TYPED.map(([line]) => `fusetap ${line}`)]) {
      terminal.stdin.write(`${line}\n`);
      called.push(await takeCall(join(directory, 'called')));
    }
  } catch (error) {
    throw new Error(`${error}; the terminal shows:\n${shown}`);
  }
  terminal.stdin.end('exit\n');
  await once(terminal, 'exit');
  return called.slice(1);
}

/** What `fusetap` was called with last, when it was. */
async function takeCall(path: string): Promise<string[]> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await delay(20)) {
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    if (!text.endsWith('\n')) continue;
    rmSync(path);
    return text.slice(0, -1).split('\n');
  }
  throw new Error('fusetap was not called');
}

for (const shell of Object.keys(SHELLS)) {
  const missing = [shell, 'script'].find((program) => !isInstalled(program));
  t.test(
    `${shell} completes what is typed`,
    { skip: missing !== undefined && `${missing} is not installed` },
    async (t) => {
      const called = await type(t, await prepare(t), shell);
      for (const [index, [line, words]] of TYPED.entries()) t.same(called[index], words, JSON.stringify(line));
    },
  );
}

/** what fish offers for a line, in its order */
const FISH: [line: string, offered: string[]][] = [
  ['det', ['detach']],
  ['detach xv', ['xvda', 'xvdb']],
  ['--bus two detach xv', ['xvdz']],
  ['attach ram:go', ['ram:golden.img']],
  ['attach --driver sy', ['sync']],
  ['run ram:x -- cat gol', ['golden.img']],
];

t.test('fish completes', { skip: !isInstalled('fish') && 'fish is not installed' }, async (t) => {
  const { directory, runtime } = await prepare(t);
  const own = { PATH: `${directory}:${process.env.PATH}`, HOME: directory, FUSETAP_RUNTIME_DIR: runtime };
  const options = { cwd: join(directory, 'files'), env: { ...process.env, ...own } };
  for (const [line, offered] of FISH) {
    const script = `source ${directory}/completion.fish; complete -C 'fusetap ${line}'`;
    const { stdout, stderr } = await promisify(execFile)('fish', ['--no-config', '-c', script], options);
    t.equal(stderr, '');
    const words = stdout.split('\n').map((one) => one.replace(/\t.*/, ''));
    t.same(
      words.filter((word) => word !== ''),
      offered,
      line,
    );
  }
});

t.test('another shell is refused', async (t) => {
  t.equal((await fusetap(tempDir(t), ['completion', 'tcsh'])).status, 2);
});
