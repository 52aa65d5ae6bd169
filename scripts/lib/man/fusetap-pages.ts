/**
 * The pages fusetap(1) and fusetap-COMMAND(1), made from the program itself: what `--help` prints, and below it what
 * docs/cli.md says beside.
 */
import type { Argument, Command, Help, Option } from 'commander';
import { COMMON_EXITS, type HelpList, helpEndOf } from '../../../cli/options.js';
import { ENVIRONMENT, FILES } from './environment.js';
import { blocksOf, sectionOf } from './markdown.js';
import { type Block, bold, helpText, italic, join, type Page, plain, type Roff, reference } from './roff.js';

/** A page for the program, and one for each of its commands. */
export function fusetapPages(program: Command, manual: string): Page[] {
  const help = program.createHelp();
  const commands = help.visibleCommands(program);
  return [programPage(program, commands, help), ...commands.map((command) => commandPage(command, help, manual))];
}

/** Other names of commands, with the page of each. */
export function aliasesOf(program: Command): [alias: string, page: string][] {
  return program.commands.flatMap((command) =>
    command.aliases().map((alias): [string, string] => [nameOf(alias), nameOf(command.name())]),
  );
}

const nameOf = (command: string): string => `fusetap-${command}`;

function programPage(program: Command, commands: readonly Command[], help: Help): Page {
  const others = commands.map((command) => reference(nameOf(command.name()), 1));
  const more = [reference('fusetap.drivers', 7), reference('tap-ctl', 8)];
  return {
    name: 'fusetap',
    section: 1,
    blocks: [
      ...opening('fusetap', program.summary(), program, help),
      section('Options'),
      paragraph('Options of all commands. They may come before or after the name of the command.'),
      ...help.visibleOptions(program).map((option) => optionItem(option, help)),
      section('Commands'),
      ...commands.map((command): Block => {
        return {
          kind: 'item',
          term: reference(nameOf(command.name()), 1),
          text: plain(`${help.subcommandDescription(command)}.`),
        };
      }),
      ...exitStatus(COMMON_EXITS),
      section('Environment'),
      ...ENVIRONMENT,
      section('Files'),
      ...FILES,
      section('See also'),
      { kind: 'paragraph', text: join([...others, ...more], ', ') },
      paragraph('The directory docs of the package has more: cli.md, recipes.md, coherence.md and other pages.'),
    ],
  };
}

function commandPage(command: Command, help: Help, manual: string): Page {
  const name = nameOf(command.name());
  const end = helpEndOf(command);
  return {
    name,
    section: 1,
    blocks: [
      ...opening(name, command.summary() || command.description(), command, help),
      ...command.registeredArguments
        .filter(({ description }) => description !== '')
        .map((word) => argumentItem(word, help)),
      section('Options'),
      ...help.visibleOptions(command).map((option) => optionItem(option, help)),
      {
        kind: 'paragraph',
        text: join([
          plain('Options of all commands, such as '),
          bold('--bus'),
          plain(' and '),
          bold('--json'),
          plain(', are in '),
          reference('fusetap', 1),
          plain('.'),
        ]),
      },
      ...(end?.lists ?? []).flatMap(({ title, rows }) => [section(title), ...rows.map(rowItem)]),
      ...notes(command.name(), manual),
      ...(end === undefined ? [] : ends(end)),
      section('See also'),
      { kind: 'paragraph', text: join([reference('fusetap', 1), reference('fusetap.drivers', 7)], ', ') },
    ],
  };
}

/** NAME, SYNOPSIS and DESCRIPTION. */
function opening(name: string, summary: string, command: Command, help: Help): Block[] {
  return [
    section('Name'),
    { kind: 'paragraph', text: join([plain(name), ' \\- ' as Roff, plain(summary)]) },
    section('Synopsis'),
    { kind: 'paragraph', text: synopsis(help.commandUsage(command)) },
    section('Description'),
    { kind: 'paragraph', text: helpText(help.commandDescription(command)) },
  ];
}

/** The words that stand for others are in capitals. */
function synopsis(usage: string): Roff {
  const words = usage.replaceAll(/[<>]/g, '').split(/([A-Z]{2,})/);
  return join(words.map((word, index) => (index % 2 === 1 ? italic(word) : index === 0 ? start(word) : plain(word))));
}

/** `fusetap attach` in bold. */
function start(words: string): Roff {
  const [, program = '', rest = ''] = /^([a-z -]*)(.*)$/s.exec(words) ?? [];
  return join([bold(program.trimEnd()), plain(program === program.trimEnd() ? rest : ` ${rest}`)]);
}

function optionItem(option: Option, help: Help): Block {
  const term = help.optionTerm(option).split(/[<[]([^>\]]*)[>\]]/);
  const text = helpText(help.optionDescription(option));
  return { kind: 'item', term: join(term.map((part, index) => (index % 2 === 1 ? italic(part) : bold(part)))), text };
}

function argumentItem(argument: Argument, help: Help): Block {
  return { kind: 'item', term: italic(argument.name()), text: helpText(help.argumentDescription(argument)) };
}

function rowItem([term, meaning]: readonly [string, string]): Block {
  return { kind: 'item', term: bold(term), text: helpText(meaning) };
}

function ends({ exits, examples }: { exits: HelpList; examples: readonly string[] }): Block[] {
  return [
    ...(exits === COMMON_EXITS ? [section('Exit status'), sameExits] : exitStatus(exits)),
    section('Examples'),
    { kind: 'code', lines: examples },
  ];
}

const sameExits: Block = { kind: 'paragraph', text: join([plain('As in '), reference('fusetap', 1), plain('.')]) };

function exitStatus({ intro, rows }: HelpList): Block[] {
  return [section('Exit status'), ...(intro === undefined ? [] : [paragraph(intro)]), ...rows.map(rowItem)];
}

/** What docs/cli.md says about a command beside its first paragraph, which is the help, and its options. */
function notes(command: string, manual: string): Block[] {
  const heading = manual.split('\n').find((line) => new RegExp(`^### \`fusetap ${command}[\` ]`).test(line));
  if (heading === undefined) return [];
  const [, ...others] = sectionOf(manual, heading.replace(/^### /, '')).split(/\n\n+(?=\S)/);
  const rest = others.filter((part) => !/^(- `-|\|)/.test(part));
  return rest.length === 0 ? [] : [section('Notes'), ...blocksOf(rest.join('\n\n'))];
}

const section = (title: string): Block => ({ kind: 'section', text: plain(title) });
const paragraph = (text: string): Block => ({ kind: 'paragraph', text: helpText(text) });
