/**
 * What can be completed, read off the commands themselves, so that no list can fall behind: options, and for each
 * argument what kind of word it takes.
 */
import type { Command, Option } from 'commander';

/** What a word can be completed with. */
export type WordKind = 'file' | 'directory' | 'vbd' | 'bus' | 'choices' | 'nothing';

export interface CompletedOption {
  /** `--wait` and, where it has one, `-w` */
  readonly flags: readonly string[];
  readonly description: string;
  /** null where it takes no value */
  readonly value: Words | null;
}

export interface Words {
  readonly kind: WordKind;
  readonly choices: readonly string[];
}

export interface CompletedCommand {
  readonly name: string;
  readonly description: string;
  readonly options: readonly CompletedOption[];
  readonly arguments: readonly Words[];
  /** the last argument may be given again */
  readonly isVariadic: boolean;
}

/** by the name of an argument, or of an option's value, as the help shows it */
const KINDS: Readonly<Record<string, WordKind>> = {
  SPEC: 'file',
  IMAGE: 'file',
  FILE: 'file',
  PATH: 'file',
  DIR: 'directory',
  VBD: 'vbd',
  BUS: 'bus',
  'NAME|DIR': 'bus',
};

const MODES: Words = { kind: 'choices', choices: ['r', 'w', 'w!'] };

/** The commands of a program, each with the options that it shares with all. */
export function completedCommands(program: Command): CompletedCommand[] {
  const shared = program.options.map(completedOption);
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.summary(),
    options: [...command.options.map(completedOption), ...shared, HELP],
    arguments: command.registeredArguments.map((argument) => wordsOf(argument.name(), argument.argChoices)),
    isVariadic: command.registeredArguments.at(-1)?.variadic ?? false,
  }));
}

/** The options that stand before a command's word. */
export function sharedOptions(program: Command): CompletedOption[] {
  return [...program.options.map(completedOption), HELP];
}

const HELP: CompletedOption = { flags: ['--help', '-h'], description: 'this help', value: null };

function completedOption(option: Option): CompletedOption {
  const flags = [option.long, option.short].filter((flag) => flag !== undefined && flag !== null) as string[];
  const name = /[<[](.+?)(?:\.\.\.)?[>\]]/.exec(option.flags)?.[1];
  return {
    flags,
    description: option.description,
    value: name === undefined ? null : wordsOf(name, option.argChoices),
  };
}

function wordsOf(name: string, choices: readonly string[] | undefined): Words {
  if (choices !== undefined) return { kind: 'choices', choices };
  if (name === 'MODE') return MODES;
  // as `auto|on|off`: the choices themselves
  if (/^[a-z0-9-]+(\|[a-z0-9-]+)+$/.test(name)) return { kind: 'choices', choices: name.split('|') };
  return { kind: KINDS[name.replace(/\.\.\.$/, '')] ?? 'nothing', choices: [] };
}
