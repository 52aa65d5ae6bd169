/** Finds the position of the word under the cursor in a command line, which decides what it can be. */
import type { Command, Option } from 'commander';
import { isMode } from '../../mount/images/mode.js';
import { findSlot } from '../../mount/slots/slots.js';
import { flagsOf, type Kind, kindOfArgument, kindOfValue, takesValue } from './kinds.js';

export interface Place {
  /** null: the command's name is not there yet, or there is no such command */
  readonly command: Command | null;
  /** what the word can be, as an argument or the value of an option; null if it is the name of a command */
  readonly kinds: readonly Kind[] | null;
  /** the options that are allowed here; none after `--`, and none if a value must follow */
  readonly options: readonly Option[];
  /** the start of the word that is not completed, such as `--bus=` */
  readonly kept: string;
  /** the arguments that the command has before the word */
  readonly words: readonly string[];
  /** the value of `--bus` */
  readonly bus: string | undefined;
}

/** `help` is no command: the name of one follows it. */
export const HELP = 'help';

/** Options that take the place of the argument SPEC. */
const INSTEAD_OF_SPEC: ReadonlySet<string> = new Set(['--driver', '--image']);

/** The words of another program, after `run … --`: the index of its name. */
export function startOfOtherProgram(words: readonly string[]): number | null {
  const end = words.indexOf('--');
  const isRun = words.slice(0, end).includes('run');
  return end > 0 && end < words.length - 1 && isRun ? end + 1 : null;
}

/** @param words those after `fusetap`; the last one is under the cursor and may be empty */
export function findPlace(program: Command, words: readonly string[]): Place {
  const current = words.at(-1) ?? '';
  let command: Command | null = null;
  let pending: Option | undefined;
  let isOver = false;
  let bus: string | undefined;
  const found: string[] = [];
  const flags: string[] = [];
  for (const word of words.slice(0, -1)) {
    const [flag = '', value] = isOver ? [] : splitFlag(word);
    if (pending !== undefined) {
      if (pending.long === '--bus') bus = word;
      pending = undefined;
    } else if (word === '--' && !isOver) isOver = true;
    else if (flag !== '') {
      flags.push(flag);
      const option = optionsOf(program, command).find((candidate) => flagsOf(candidate).includes(flag));
      if (option !== undefined && takesValue(option) && value === undefined) pending = option;
      if (flag === '--bus') bus = value;
    } else if (command === null && word !== HELP) {
      command = program.commands.find((candidate) => candidate.name() === word) ?? null;
      if (command === null) return { command, kinds: ['nothing'], options: [], kept: '', words: found, bus };
    } else if (command !== null) found.push(word);
  }
  const place = { command, words: found, bus, kept: '' };
  if (pending !== undefined) return { ...place, kinds: [kindOfValue(pending)], options: [] };
  const options = isOver ? [] : optionsOf(program, command);
  const [flag, value] = splitFlag(current);
  const valued = value === undefined ? undefined : options.find((option) => option.long === flag);
  if (valued !== undefined) return { ...place, kinds: [kindOfValue(valued)], options: [], kept: `${flag}=` };
  return { ...place, kinds: command === null ? null : kindsOfWord(command, found, flags), options };
}

/** `--bus=7` as its flag and its value; other words have neither. */
function splitFlag(word: string): [flag?: string, value?: string] {
  if (!/^-./.test(word)) return [];
  const at = word.startsWith('--') ? word.indexOf('=') : -1;
  return at < 0 ? [word] : [word.slice(0, at), word.slice(at + 1)];
}

function optionsOf(program: Command, command: Command | null): readonly Option[] {
  return [...(command?.options ?? []), ...program.options];
}

function kindsOfWord(command: Command, words: readonly string[], flags: readonly string[]): readonly Kind[] {
  const arguments_ = command.registeredArguments;
  const [first, last] = [arguments_[0], arguments_.at(-1)];
  const isSpecGiven = first?.name() === 'SPEC' && flags.some((flag) => INSTEAD_OF_SPEC.has(flag));
  if (!isSpecGiven && last?.variadic && arguments_.some((argument) => argument.name() === 'VDEV')) {
    return kindsInList(command, words.at(-1));
  }
  const index = words.length + (isSpecGiven ? 1 : 0);
  const argument = arguments_[index] ?? (last?.variadic ? last : undefined);
  return [argument === undefined ? 'nothing' : kindOfArgument(command, argument)];
}

/** In `SPEC [VDEV] [MODE] SPEC …`: the word before decides what can follow. */
function kindsInList(command: Command, before: string | undefined): readonly Kind[] {
  const names = ['SPEC'];
  if (before !== undefined && !isMode(before)) names.push(findSlot(before) === null ? 'VDEV' : 'MODE');
  return names.flatMap((name) => {
    const argument = command.registeredArguments.find((one) => one.name() === name);
    return argument === undefined ? [] : [kindOfArgument(command, argument)];
  });
}
