/**
 * `fusetap __complete`: the completions of the word under the cursor. The scripts of the shells only call this, so all
 * shells offer the same: words from the definitions of the commands, and what is on the buses now.
 *
 *      fusetap __complete --line 'fusetap detach xv'     the line up to the cursor
 *      fusetap __complete -- detach xv                   the words of the line; the last one may be empty
 *
 * The answer has one item per line:
 *
 *      words | files | directories | command     what the shell itself adds
 *      ram:                                      the part of the word before the file name; for `command`, the index
 *                                                of the command's name among the words
 *      gold                                      the rest of the word: the start of the file name
 *      xvda<tab>/srv/disk.img                    a completion and its description; any number of these lines
 */
import { relative } from 'node:path';
import type { Command } from 'commander';
import { driverNames, driverSummaries, factsOf } from '../../drivers/names.js';
import { describeDisk } from '../../mount/client/disk-wish.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { PREFIXES } from '../disk-spec/index.js';
import { flagsOf, type Kind } from './kinds.js';
import { allVbds, busNames, freePlaces, inTime, mountedDirectories, type Offered, tagsOf, vbdsOf } from './live.js';
import { findPlace, HELP, type Place, startOfOtherProgram } from './place.js';
import { splitLine } from './split-line.js';

interface Answer {
  readonly adds: 'words' | 'files' | 'directories' | 'command';
  readonly kept: string;
  readonly offered: readonly Offered[];
}

const FILTERS = ['delay=', 'error=', 'read-only'];

/** The words to complete, without `fusetap`. @param args the arguments after `__complete` */
export function wordsOf(args: readonly string[]): string[] {
  return args[0] === '--line' ? splitLine(args[1] ?? '').slice(1) : args.slice(1);
}

/** Prints the answer. @param words the last one is under the cursor */
export async function printCompletion(program: Command, words: readonly string[]): Promise<void> {
  const current = words.at(-1) ?? '';
  const { adds, kept, offered } = await complete(program, words);
  const lines = offered.filter(({ word }) => word.startsWith(current)).map(({ word, about }) => `${word}\t${about}`);
  const rest = adds === 'command' ? '' : current.slice(kept.length);
  process.stdout.write(`${[adds, kept, rest, ...lines].join('\n')}\n`);
}

async function complete(program: Command, words: readonly string[]): Promise<Answer> {
  const start = startOfOtherProgram(words);
  if (start !== null) return { adds: 'command', kept: String(start), offered: [] };
  const place = findPlace(program, words);
  const current = (words.at(-1) ?? '').slice(place.kept.length);
  const answers =
    place.kinds === null
      ? [commandsOf(program)]
      : await Promise.all(place.kinds.map((kind) => answerFor(kind, place, current)));
  // a list of drivers would hide what else the word can be
  const isAny = answers.length > 1 && current === '';
  const offered = answers.flatMap((answer, i) => (isAny && place.kinds?.[i] === 'spec' ? [] : answer.offered));
  const shells = answers.find(({ adds }) => adds !== 'words');
  // for an empty word, offer arguments, not options
  const flags = current.startsWith('-') || place.kinds === null ? flagsIn(place) : [];
  return {
    adds: shells?.adds ?? 'words',
    kept: place.kept + (shells?.kept ?? ''),
    offered: [...offered.map(({ word, about }) => ({ word: place.kept + word, about })), ...flags],
  };
}

function commandsOf(program: Command): Answer {
  const commands = program.commands.map((command) => ({ word: command.name(), about: command.summary() }));
  return plain([...commands, { word: HELP, about: 'the help of a command' }]);
}

function flagsIn({ options }: Place): Offered[] {
  const flags = options.flatMap((option) => flagsOf(option).map((word) => ({ word, about: option.description })));
  return options.length === 0 ? [] : [...flags, ...['--help', '-h'].map((word) => ({ word, about: 'this help' }))];
}

function plain(offered: readonly Offered[], adds: Answer['adds'] = 'words', kept = ''): Answer {
  return { adds, kept, offered };
}

const named = (words: readonly string[]): Offered[] => words.map((word) => ({ word, about: '' }));

async function answerFor(kind: Kind, place: Place, current: string): Promise<Answer> {
  const { words } = place;
  const busWord = busOf(place);
  switch (kind) {
    case 'spec':
      return specs(current);
    case 'file':
      return plain([], 'files');
    case 'directory':
      return plain([], 'directories');
    case 'driver':
      return plain(drivers(), 'files');
    case 'filter':
      return plain(named(FILTERS));
    case 'mounted':
      return plain(named((await inTime(mountedDirectories())).map((path) => asTyped(path, current))));
    case 'bus':
      return plain(named(await inTime(busNames())), 'directories');
    case 'free':
      return plain(named(await freePlaces(busWord)));
    case 'attached':
      return plain(vbds(await inTime(vbdsOf(busWord)), words));
    case 'vbd':
      if (isTag(current)) return plain(await inTime(tagsOf(busWord)));
      return vbdsOrImages(vbds(await inTime(vbdsOf(busWord)), words), current);
    case 'vbd-or-spec': {
      if (isTag(current)) return plain(await inTime(tagsOf(busWord)));
      const { adds, offered, kept } = vbdsOrImages(vbds(await inTime(vbdsOf(busWord)), words), current);
      return adds === 'files'
        ? { ...specs(current), offered: [...offered, ...specs(current).offered] }
        : { adds, kept, offered };
    }
    case 'share':
      return plain(named([...new Set((await inTime(allVbds())).flatMap(({ share }) => share ?? []))]));
    case 'nothing':
      return plain([]);
    default:
      return plain(named(kind));
  }
}

/** Whether a word begins like LABEL=, UUID=, PARTLABEL= or PARTUUID=: disks are read only then. */
function isTag(current: string): boolean {
  return /^(?:LA|UU|PART)[A-Z]*(?:=.*)?$/.test(current);
}

/** The bus that the line names: as an argument, as with the commands of xm, or with `--bus`. */
function busOf({ command, words, bus }: Place): string | undefined {
  const index = command?.registeredArguments.findIndex((argument) => argument.name() === 'BUS') ?? -1;
  return words[index] ?? bus;
}

/** A path names a vbd too, but a list of all files would hide the few vbds. */
function vbdsOrImages(offered: readonly Offered[], current: string): Answer {
  return plain(offered, offered.some(({ word }) => word.startsWith(current)) ? 'words' : 'files');
}

/** A path in the form that the word has: absolute, or relative to the working directory if it is below it. */
function asTyped(path: string, current: string): string {
  if (current.startsWith('/')) return path;
  try {
    const fromHere = relative('.', path);
    return fromHere.startsWith('..') ? path : fromHere;
  } catch {
    // the working directory was deleted
    return path;
  }
}

/** Without those that the line has already. */
function vbds(found: readonly VbdInfo[], words: readonly string[]): Offered[] {
  return found
    .filter(({ vdev }) => !words.includes(vdev))
    .map((vbd) => ({
      word: vbd.vdev,
      about: vbd.image === null || vbd.disk ? describeDisk(vbd) : `${vbd.driver}:${vbd.image}`,
    }));
}

function drivers(behind = ''): Offered[] {
  return driverSummaries.map(([name, summary]) => ({ word: name + behind, about: summary }));
}

/** Whether a path can follow the driver in a spec. */
function takesImage(driver: string): boolean {
  const facts = factsOf(driver);
  return facts !== undefined && (facts.needsImage || facts.sharesMemory === true || facts.isRemote === true);
}

/** `ram:gold`: a file after a driver, or after a prefix of Xen's tools. */
function specs(current: string): Answer {
  const kept = new RegExp(`^(?:(?:${[...PREFIXES, ...driverNames].join('|')}):)+`).exec(current)?.[0] ?? '';
  const named = drivers(':').filter(({ word }) => takesImage(word.slice(0, -1)));
  return plain(kept === '' ? named : [], 'files', kept);
}
