/**
 * Hints name only words that exist: every `fusetap COMMAND --option` in the sources is one that the program has, and an
 * error never names an option that its command lacks.
 */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import t from 'tap';
import ts from 'typescript';
import { fitHint, longOptionsOf } from '../../cli/fit-hint.js';
import { addCommands, COMMANDS, makeProgram } from '../../cli/program.js';
import { HINTS, hintForArgument, hintForCommand, hintForOption, translate } from '../../cli/words-of-other-tools.js';
import { readTree } from '../lint/rooms.js';
import { fusetap, tempDir } from './fake-bus.js';

const names = Object.keys(COMMANDS);
const program = makeProgram();
await addCommands(program, names);
const commandOf = (name: string): Command | undefined => program.commands.find((command) => command.name() === name);

function flagsOf(name: string): string[] {
  const own = [...(commandOf(name)?.options ?? []), ...program.options].flatMap(({ long, short }) => [long, short]);
  return [...own.filter((flag) => flag != null), '--help', '-h'] as string[];
}

/** `fusetap` and the words after it, up to the end of a clause or of a shell command. */
const CALL = /\bfusetap ((?:--?[a-z][a-z-]*(?: [A-Z0-9$…]\S*)? )*)([a-z][a-z-]*)\b([^,;:|()'"`\n]*)/g;

/** The mistakes in the calls of fusetap that a text names. */
function mistakesIn(text: string): string[] {
  return [...text.matchAll(CALL)].flatMap(([call, before = '', name = '', after = '']) => {
    const command = commandOf(name);
    if (command === undefined) return [];
    // after `--` come the words of another program
    const own = `${before}${after.split(/ -- |&|>/)[0]}`;
    const flags = own.match(/(?<![\w-])--?[a-z][a-z-]*/g) ?? [];
    return flags.filter((flag) => !flagsOf(name).includes(flag)).map((flag) => `${call.trim()}: no ${flag}`);
  });
}

interface SourceString {
  readonly path: string;
  /** a value in a template is `…` */
  readonly text: string;
  /** it is, or is part of, a property `hint` */
  readonly isHint: boolean;
}

function stringsOf(path: string, source: string): SourceString[] {
  const found: SourceString[] = [];
  const visit = (node: ts.Node, within: boolean): void => {
    const isHint = within || (ts.isPropertyAssignment(node) && node.name.getText() === 'hint');
    if (ts.isStringLiteralLike(node)) found.push({ path, text: node.text, isHint });
    if (ts.isTemplateExpression(node)) {
      const parts = [node.head.text, ...node.templateSpans.map(({ literal }) => literal.text)];
      found.push({ path, text: parts.join('…'), isHint });
    }
    ts.forEachChild(node, (child) => visit(child, isHint));
  };
  visit(ts.createSourceFile(path, source, ts.ScriptTarget.ES2022, true), false);
  return found;
}

const { files } = readTree(resolve(import.meta.dirname, '../../..'));
const strings = [...files].flatMap(([path, text]) => stringsOf(path, text));
const hints = strings.filter(({ isHint }) => isHint);

t.test('calls of fusetap in the sources have only options that exist', async (t) => {
  const calls = strings.filter(({ text }) => text.includes('fusetap '));
  t.ok(calls.length > 100, `${calls.length} strings were read`);
  t.same(
    calls.flatMap(({ path, text }) => mistakesIn(text).map((mistake) => `${path}: ${mistake}`)),
    [],
  );
  t.same(mistakesIn('fusetap detach --bus 0 xvda, or fusetap stop --soon'), ['fusetap stop --soon: no --soon']);
});

t.test('the hint of a command names only its own options', async (t) => {
  for (const { path, text: hint } of hints) {
    const [, name] = /^cli\/commands\/(.+)\.ts$/.exec(path) ?? [];
    if (name !== undefined) t.equal(fitHint(hint, longOptionsOf(commandOf(name) as Command), names), hint, path);
  }
});

t.test('every option in a hint is one of some command', async (t) => {
  const known = new Set(names.flatMap(flagsOf));
  const ofOtherPrograms = /(losetup|nsenter|mount\(8\))[^,;]*/g;
  const unknown = hints.flatMap(({ path, text }) => {
    const flags = text.replace(ofOtherPrograms, '').match(/(?<![\w-])--[a-z][a-z-]*/g) ?? [];
    return flags.filter((flag) => !known.has(flag)).map((flag) => `${path}: ${flag}`);
  });
  t.same(unknown, []);
});

const BUSY_HINT = 'close it there, or wait with --wait SECONDS, or cut it off with --force';

t.test('a clause with an option that the command lacks is dropped', async (t) => {
  const fitted = (name: string, hint: string) => fitHint(hint, longOptionsOf(commandOf(name) as Command), names);
  for (const name of ['detach', 'stop', 'block-detach']) t.equal(fitted(name, BUSY_HINT), BUSY_HINT, name);
  t.equal(fitted('reset', BUSY_HINT), 'close it there');
  t.equal(fitted('reset', 'wait with --wait SECONDS'), undefined);
  t.equal(
    fitted('pause', 'close it there, or attach it with --passthrough off'),
    'close it there, or attach it with --passthrough off',
  );
  t.equal(
    fitted('ls', 'wait until it does, or fusetap detach --force xvda'),
    'wait until it does, or fusetap detach --force xvda',
  );
  t.equal(fitted('block-attach', 'omit --share, or use the driver ram'), 'use the driver ram');
  for (const name of names) {
    const flags = fitted(name, BUSY_HINT)?.match(/--[a-z]+/g) ?? [];
    t.same(
      flags.filter((flag) => !flagsOf(name).includes(flag)),
      [],
      name,
    );
  }
});

t.test('words of other tools are explained by words that exist', async (t) => {
  for (const [command, hint] of HINTS) {
    const [, word] = /^did you mean (\S+)\?/.exec(hint) ?? [];
    if (word === undefined) t.same(mistakesIn(hint), [], hint);
    else if (word.startsWith('-')) t.ok(flagsOf(command).includes(word), `${command}: ${hint}`);
    else if (word !== 'fusetap') t.ok(names.includes(word), hint);
  }
  t.equal(hintForCommand('constructor'), undefined);
  t.equal(hintForCommand('package.json'), 'did you mean fusetap attach package.json?');
  t.equal(hintForOption('constructor', '-d'), undefined);
  t.equal(hintForArgument('stop', '7'), 'did you mean fusetap stop --bus 7?');
  t.equal(hintForArgument('show', '7'), undefined);
});

t.test('no hint is for a word that fusetap has itself', async (t) => {
  const words = ['', ...names].flatMap((name) => {
    const flags = flagsOf(name).filter((flag) => hintForOption(name, flag) !== undefined);
    return [...(hintForCommand(name) === undefined ? [] : [name]), ...flags.map((flag) => `${name} ${flag}`)];
  });
  t.same(words, [], 'remove these from words-of-other-tools.ts');
});

t.test('help, version and status', async (t) => {
  t.same(translate(['help'], names), ['--help']);
  t.same(translate(['--json', 'help', 'attach'], names), ['--json', 'attach', '--help']);
  t.same(translate(['help', 'status'], names), ['ls', '--help']);
  t.same(translate(['help', 'nonsense'], names), ['nonsense']);
  t.same(translate(['version'], names), ['--version']);
  t.same(translate(['--bus', 'status', 'status'], names), ['--bus', 'status', 'ls']);
  t.same(translate(['run', 'a.img', '--', 'help'], names), ['run', 'a.img', '--', 'help']);
  t.same(translate(['--bus'], names), ['--bus']);
});

const HABITS: readonly (readonly [words: string, line: RegExp])[] = [
  ['rm x', /unknown command 'rm': did you mean detach\?/],
  ['-d xvda', /unknown option '-d': did you mean fusetap detach VBD\?/],
  ['attach -P disk.img', /did you mean --partitions\?/],
  ['stop 7', /too many arguments .*: did you mean fusetap stop --bus 7\?/],
  ['-j disk.img', /did you mean fusetap ls IMAGE\?/],
  ['mount -a disk.img -m /dev/sda1 m', /fusetap mount IMAGE DIR/],
  ['help nonsense', /unknown command 'nonsense'/],
];

for (const [words, line] of HABITS) {
  t.test(`fusetap ${words}`, async (t) => {
    const { status, stdout, stderr } = await fusetap(tempDir(t), words.split(' '));
    t.match({ status, stdout, stderr }, { status: 2, stdout: '', stderr: line });
    t.match(stderr, /^fusetap: [^\n]+\n$/, 'one line');
  });
}
