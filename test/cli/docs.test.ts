/**
 * Three places list the commands and options: the code, `--help` and docs/cli.md. All three must have the same ones.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import t from 'tap';
import { addCommands, COMMANDS, makeProgram } from '../../cli/program.js';
import { EXIT_CODES } from '../../drivers/errors.js';
import { fusetap, tempDir } from './fake-bus.js';

const page = readFileSync(resolve(import.meta.dirname, '../../../docs/cli.md'), 'utf8');
const program = makeProgram();
await addCommands(program, Object.keys(COMMANDS));

interface Section {
  name: string;
  words: string[];
  options: string[];
  text: string;
}

/** The sections of commands: `### \`fusetap NAME WORDS\``, and in them the options, as items of a list. */
const sections: Section[] = page.split(/^(?=#{2,3} )/m).flatMap((text) => {
  const [, name, words = ''] = /^### `fusetap (\S+)(?: (.*))?`\n/.exec(text) ?? [];
  return name === undefined ? [] : [{ name, words: plainWords(words), options: optionsIn(text), text }];
});

function plainWords(words: string): string[] {
  return words.match(/[A-Z]+(\|[A-Z]+)*/g) ?? [];
}

/** The flags that items of a list begin with. */
function optionsIn(text: string): string[] {
  const heads = [...text.matchAll(/^- (`-[^:]*):/gm)].map(([, head]) => head ?? '');
  return heads.flatMap((head) => head.match(/(?<=`)--?[a-zA-Z][a-z-]*/g) ?? []).sort();
}

function flagsOf(command: Command): string[] {
  return command.options.flatMap(({ long, short }) => [long, short].filter((flag) => flag != null) as string[]).sort();
}

t.test('commands', async (t) => {
  const names = sections.map(({ name }) => name).sort();
  t.same(names, program.commands.map((command) => command.name()).sort(), 'docs and code');
  const files = readdirSync(new URL('../../cli/commands', import.meta.url)).flatMap(
    (file) => /^(.+)\.js$/.exec(file)?.[1] ?? [],
  );
  t.same(names, files.sort(), 'each has a file');
  const help = [...program.helpInformation().matchAll(/^ {2}([a-z][a-z-]+)[ |]/gm)].map(([, name]) => name).sort();
  t.same(names, help, 'docs and help');
});

for (const { name, words, options } of sections) {
  const command = program.commands.find((candidate) => candidate.name() === name);
  if (command === undefined) continue;
  t.test(`fusetap ${name}`, async (t) => {
    const help = command.helpInformation();
    t.same(options, flagsOf(command), 'options of docs and code');
    const own = help.slice(help.indexOf('\nOptions:\n'), help.indexOf('\nGlobal Options:\n'));
    const inHelp = [...own.matchAll(/^ {2}(-[^ ,]+(?:, --[^ ,]+)?)/gm)].flatMap(
      ([, flags]) => flags?.split(', ') ?? [],
    );
    t.same(
      inHelp.filter((flag) => !['-h', '--help'].includes(flag)).sort(),
      flagsOf(command),
      'options of help and code',
    );
    // run has two lists of words; commander knows the first
    const expected = command.registeredArguments.map((argument) => argument.name());
    t.same(name === 'run' ? words.slice(0, 1) : words, expected, 'words of docs and code');
  });
}

t.test('options of all commands', async (t) => {
  const text = /^## Every command\n[\s\S]*?(?=^#)/m.exec(page)?.[0] ?? '';
  t.same(optionsIn(text), [...flagsOf(program), '--help', '-h'].sort());
});

t.test('exit codes', async (t) => {
  const rows = [...page.matchAll(/^\| (\d) +\| ([A-Z_]*) *\| (.*?) *\|$/gm)].map(([, exit, code, meaning]) => ({
    exit,
    code,
    meaning,
  }));
  t.same(
    rows.map(({ exit, code }) => [code, exit]),
    [['', '0'], ...Object.entries(EXIT_CODES).map(([code, exit]) => [code, String(exit)])],
    'docs and code',
  );
  const { stdout } = await fusetap(tempDir(t), ['ls', '--help']);
  for (const { exit, meaning } of rows)
    t.ok(stdout.includes(`\n  ${exit}  ${meaning}\n`), `help says ${exit} as docs do`);
  const run = sections.find(({ name }) => name === 'run')?.text ?? '';
  const ofRun = [...run.matchAll(/^\| ([\d+N]+) +\| (.*?) *\|$/gm)].map(([, exit, meaning]) => [exit, meaning]);
  t.same(
    ofRun.map(([exit]) => exit),
    ['125', '126', '127', '128+N'],
  );
  const check = sections.find(({ name }) => name === 'check')?.text ?? '';
  const ofCheck = [...check.matchAll(/^\| (\d+) +\| (.*?) *\|$/gm)];
  t.same(
    ofCheck.map(([, exit]) => exit),
    ['0', '1', '2', '3', '63'],
  );
  const helpOfCheck = (await fusetap(tempDir(t), ['check', '--help'])).stdout;
  for (const [, exit = '', meaning] of ofCheck)
    t.ok(helpOfCheck.includes(`\n  ${exit.padEnd(2)}  ${meaning}\n`), `help of check: ${exit}`);
  const help = await fusetap(tempDir(t), ['run', '--help']);
  for (const [exit = '', meaning] of ofRun)
    t.ok(help.stdout.includes(`\n  ${exit.padEnd(5)}  ${meaning}\n`), `help of run: ${exit}`);
});
