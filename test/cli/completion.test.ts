/**
 * Completion for a user: Tab is pressed in the real shells, which ask the real program, which asks a bus. The answers of
 * the program are also tested without a shell.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { kindOfArgument, kindOfValue, takesValue } from '../../cli/completion/kinds.js';
import { splitLine } from '../../cli/completion/split-line.js';
import { addCommands, COMMANDS, makeProgram } from '../../cli/program.js';
import { Terminal } from '../../scripts/lib/first-hour/terminal.js';
import { isInstalled } from '../e2e/command.js';
import { aBus, aFile, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

t.setTimeout(360_000);

const PROGRAM = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));

interface Stage {
  readonly directory: string;
  readonly runtime: string;
}

/** Two buses, some files, another program, and a `fusetap` that only completes. */
async function prepare(t: Test): Promise<Stage> {
  const directory = tempDir(t);
  const runtime = join(directory, 'runtime');
  const vbds = { 0: ['xvda', 'xvdb'], two: ['xvdz'] };
  for (const [bus, vdevs] of Object.entries(vbds)) {
    const infos = vdevs.map((vdev) => aVbd({ bus, vdev }));
    const names = vdevs.map((vdev) => aFile({ bus, vdev, label: `of-${vdev}`, partlabel: 'two words' }));
    await fakeBus(t, runtime, bus, ({ url }) => (url === '/names' ? names : aBus(bus, infos)));
  }
  const files = join(directory, 'files');
  mkdirSync(join(files, 'images/deep'), { recursive: true });
  for (const file of ['golden.img', 'disk one.img', 'images/deep.img']) writeFileSync(join(files, file), '');
  const script = `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' "$@"\n`;
  for (const program of ['fusetap', 'unheard-of-program']) {
    writeFileSync(join(directory, program), script, { mode: 0o755 });
  }
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
  [['help', 'det'], ['words', '', 'det'], ['detach']],
  [
    ['detach', ''],
    ['words', '', ''],
    ['xvda', 'xvdb'],
  ],
  [['detach', '--wait', '5', 'xvda', 'xv'], ['words', '', 'xv'], ['xvdb']],
  [['detach', 'disk'], ['files', '', 'disk'], []],
  [
    ['detach', 'LABEL='],
    ['words', '', 'LABEL='],
    ['LABEL=of-xvda', 'LABEL=of-xvdb'],
  ],
  [['show', '--bus', 'two', 'LAB'], ['words', '', 'LAB'], ['LABEL=of-xvdz']],
  [['show', 'PARTLABEL=t'], ['words', '', 'PARTLABEL=t'], []],
  [['--bus', 'two', 'detach', ''], ['words', '', ''], ['xvdz']],
  [['detach', '--bus=two', ''], ['words', '', ''], ['xvdz']],
  [
    ['show', '--bus', ''],
    ['directories', '', ''],
    ['0', 'two'],
  ],
  [['show', '--bus=t'], ['directories', '--bus=', 't'], ['--bus=two']],
  [
    ['attach', 'r'],
    ['files', '', 'r'],
    ['ram:', 'rbd:'],
  ],
  [['attach', 'ram:'], ['files', 'ram:', ''], []],
  [['attach', 'tap:ram:go'], ['files', 'tap:ram:', 'go'], []],
  [['attach', '--image=go'], ['files', '--image=', 'go'], []],
  [
    ['attach', 'a.img', 'xvda', 'r', 'b.img', 'xvdc', ''],
    ['files', '', ''],
    ['r', 'w', 'w!'],
  ],
  [
    ['attach', 'a.img', 'r', ''],
    ['files', '', ''],
    [
      'aio:',
      'https:',
      'nbd:',
      'qcow2:',
      'ram:',
      'rbd:',
      'snapshot:',
      'split:',
      'sync:',
      'tar:',
      'vdi:',
      'vhd:',
      'vhdx:',
      'vmdk:',
    ],
  ],
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
    ['attach', '--driver', 'aio', '--image', 'disk.img', 'xv'],
    ['words', '', 'xv'],
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
  [
    ['attach', '--driver', 's'],
    ['files', '', 's'],
    ['snapshot', 'split', 'sync'],
  ],
  [['attach', 'ram:vhd:g'], ['files', 'ram:vhd:', 'g'], []],
  [
    ['attach', '--backing', ''],
    ['words', '', ''],
    ['same-directory', 'any', 'none'],
  ],
  [['mount', '--backing=n'], ['words', '--backing=', 'n'], ['--backing=none']],
  [['diff', 'xvda'], ['words', '', 'xvda'], ['xvda']],
  [['diff', 'xvda', 'qcow2:d'], ['files', 'qcow2:', 'd'], []],
  [['map', 'disk', '--svg', 'p'], ['files', '', 'p'], []],
  [['map', 'xvda'], ['words', '', 'xvda'], ['xvda']],
  [['map', 'qcow2:d'], ['files', 'qcow2:', 'd'], []],
  [['map', 'disk'], ['files', '', 'disk'], []],
  [['commit', 'xvda'], ['words', '', 'xvda'], ['xvda']],
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
  [
    ['create', '--format', ''],
    ['words', '', ''],
    ['raw', 'qcow2', 'vdi', 'vhd', 'vmdk'],
  ],
  [['create', '--backing', 'gold'], ['files', '', 'gold'], []],
  [['create', '--backing-format', 'q'], ['words', '', 'q'], ['qcow2']],
  [['check', '--repair', ''], ['words', '', ''], ['leaks']],
  [['info', 'qcow2:d'], ['files', 'qcow2:', 'd'], []],
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

/** Words that a person has to make up. */
const MADE_UP = [
  'ADDRESS:PORT',
  'BACKDOM',
  'KEY=VALUE',
  'N',
  'OPTIONS',
  'SECONDS',
  'SIZE',
  'TYPE',
  'VDEV|NUMBER',
  '--partition NAME',
  '--name NAME',
];

t.test('every word of every command has a kind', async (t) => {
  const program = makeProgram();
  await addCommands(program, Object.keys(COMMANDS));
  const words = program.commands.flatMap((command) => [
    ...command.registeredArguments.map((one) => ({ name: one.name(), kind: kindOfArgument(command, one) })),
    ...command.options.filter(takesValue).map((one) => ({ name: one.flags, kind: kindOfValue(one) })),
  ]);
  t.ok(words.length > 50, `${words.length} words`);
  for (const { name, kind } of words) {
    const plain = name.replace(/^-\w, /, '').replace(/[<>[\]]/g, '');
    const isMadeUp = MADE_UP.includes(plain) || MADE_UP.includes(plain.replace(/^--\S+ /, ''));
    t.equal(kind === 'nothing', isMadeUp, `${name}: completed, or made up by a person (cli/completion/kinds.ts)`);
  }
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

/** A line as it is typed, with its Tabs, and what is on the screen then. */
const TYPED: [keys: string, line: string][] = [
  ['det\t', 'detach'],
  ['detach xvda xv\t', 'detach xvda xvdb'],
  ['--bus two detach x\t', '--bus two detach xvdz'],
  ['detach --bus two x\t', 'detach --bus two xvdz'],
  ['detach gol\t', 'detach golden.img'],
  ['attach gol\t', 'attach golden.img'],
  ['attach ra\tgol\t', 'attach ram:golden.img'],
  ['attach ram:disk\t', String.raw`attach ram:disk\ one.img`],
  ['attach tap:ram:gol\t', 'attach tap:ram:golden.img'],
  ['attach aio:ima\tdeep.\t', 'attach aio:images/deep.img'],
  ['attach --image=gol\t', 'attach --image=golden.img'],
  ['attach --driver sy\t', 'attach --driver sync'],
  ['attach --file-mode 066\t', 'attach --file-mode 0660'],
  ['show --bus=tw\t', 'show --bus=two'],
  ['run ram:gol\t', 'run ram:golden.img'],
  ['run ram:x -- unheard\tgol\t', 'run ram:x -- unheard-of-program golden.img'],
];

/** What one Tab lists, and words that it may not list. */
const LISTED: [keys: string, listed: RegExp[], not: RegExp][] = [
  ['attach --file-mode \t', [/\b0600\b/, /\b0644\b/], /\bw!/],
  ['attach ram:\t', [/golden\.img/, /images/, /disk/], /xvd/],
  ['attach --driver \t', [/\baio\b/, /\bram\b/, /\bsync\b/, /golden\.img/], /xvd/],
  ['detach \t', [/\bxvda\b/, /\bxvdb\b/], /xvdz|golden/],
];

interface Shell {
  readonly command: readonly string[];
  /** what a person has in the start file of the shell */
  readonly start: string;
  /** a file without which this cannot be tried */
  readonly needs?: string;
  /** tries only lines that match; default: all */
  readonly only?: RegExp;
}

const BASH_COMPLETION = '/usr/share/bash-completion/bash_completion';
const BASH = `bind 'set show-all-if-ambiguous on'; PS1='> '; source completion.bash; cd files; clear`;
const SHELLS: Record<string, Shell> = {
  bash: { command: ['bash', '--norc', '-i'], start: BASH },
  'bash with bash-completion': {
    command: ['bash', '--norc', '-i'],
    start: `source ${BASH_COMPLETION}; ${BASH}`,
    needs: BASH_COMPLETION,
    // the only parts that it changes
    only: /:| -- /,
  },
  zsh: {
    command: ['zsh', '-f', '-i'],
    start: `PS1='> '; setopt no_list_ambiguous; autoload -U compinit; compinit -u -D; source completion.zsh; cd files; clear`,
  },
  fish: {
    command: ['fish', '--no-config'],
    start:
      'set -g fish_autosuggestion_enabled 0; function fish_prompt; echo "> "; end; source completion.fish; cd files; clear',
  },
};

function whyNot({ command: [program = ''], needs }: Shell): string | false {
  const missing = [program, 'tmux'].find((name) => !isInstalled(name));
  if (missing !== undefined) return `${missing} is not installed`;
  return needs !== undefined && !existsSync(needs) && `${needs} is not installed`;
}

async function openShell(t: Test, { directory, runtime }: Stage, { command, start }: Shell): Promise<Terminal> {
  const { FUSETAP_BUS: _, ...inherited } = process.env;
  const path = `${directory}:${process.env.PATH}`;
  // a shell that is killed writes its history into its home
  const own = { PATH: path, HOME: directory, HISTFILE: '', FUSETAP_RUNTIME_DIR: runtime };
  const terminal = await Terminal.open({ command, cwd: directory, env: { ...inherited, ...own }, columns: 200 });
  t.teardown(() => terminal.close());
  await terminal.type(`${start}\n`);
  await terminal.waitFor('the first prompt', ([first, second]) => first === '>' && second === undefined);
  return terminal;
}

/** Types a line, and takes it away when the screen is as wanted. */
async function tryLine(
  terminal: Terminal,
  keys: string,
  isThere: (lines: readonly string[]) => boolean,
): Promise<void> {
  for (const part of `fusetap ${keys}`.split(/(\t)/))
    await (part === '\t' ? terminal.press('Tab') : terminal.type(part));
  await terminal.waitFor(JSON.stringify(keys), isThere);
  await terminal.press('C-u', 'C-l');
  await terminal.waitFor('an empty line', (lines) => lines.length === 1 && lines[0] === '>');
}

for (const [name, shell] of Object.entries(SHELLS)) {
  t.test(`${name} completes what is typed`, { skip: whyNot(shell) }, async (t) => {
    const terminal = await openShell(t, await prepare(t), shell);
    const isTried = ([keys]: readonly [string, ...unknown[]]): boolean => shell.only?.test(keys) ?? true;
    for (const [keys, line] of TYPED.filter(isTried)) {
      await tryLine(terminal, keys, (lines) => lines[0] === `> fusetap ${line}`);
      t.pass(line);
    }
    for (const [keys, listed, not] of LISTED.filter(isTried)) {
      await tryLine(terminal, keys, (lines) => {
        const list = lines.slice(1).join('\n');
        return listed.every((pattern) => pattern.test(list)) && !not.test(list);
      });
      t.pass(`a list for ${JSON.stringify(keys)}`);
    }
  });
}

t.test('another shell is refused', async (t) => {
  t.equal((await fusetap(tempDir(t), ['completion', 'tcsh'])).status, 2);
});
