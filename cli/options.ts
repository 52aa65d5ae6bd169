/**
 * What all commands share: the options before or after the command's name, their meaning, and the end of every help
 * text.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type ErrorCode, EXIT_CODES, FusetapError } from '../drivers/errors.js';
import { type BusPlace, resolveBus, runtimeDir } from '../mount/client/index.js';
import { SECTOR_SIZES, type SectorBytes } from '../mount/client/size.js';

/** the exit status of `fusetap run` if fusetap itself failed, not the command; as in env(1) */
export const RUN_FAILED = 125;

export interface SharedOptions {
  bus?: string;
  json?: boolean;
  quiet?: boolean;
  verbose?: boolean;
  debug?: boolean;
}

/** How the argument VBD of a command can name a vbd. */
export const VBD_HELP =
  'a vdev, a slot number, or a path: of its file, its image, a directory where it is mounted, a loop device on it; ' +
  'or LABEL=, UUID=, PARTLABEL=, PARTUUID=';

/** Adds the shared options to the program; commander accepts them before and after the command's name. */
export function addSharedOptions(program: Command): void {
  program
    .option('--bus <NAME|DIR>', 'the bus: a name, or a directory if it has a "/" (default: $FUSETAP_BUS, else 0)')
    .option('--json', 'print one JSON document on stdout')
    .option('-q, --quiet', 'print only errors on stderr')
    .option('-v, --verbose', 'print more on stderr')
    .option('--debug', 'print the stack of an error');
}

/** The runtime directory of the calling user. @throws FusetapError DENIED */
export function callersRuntimeDir(): string {
  return runtimeDir(process.env, process.geteuid?.() ?? 0);
}

/** The bus from `--bus`, else from the environment, else the default bus. @throws FusetapError USAGE, NOT_FOUND */
export async function chosenBus({ bus }: SharedOptions): Promise<BusPlace> {
  const { FUSETAP_BUS } = process.env;
  try {
    return await resolveBus(bus ?? (FUSETAP_BUS || '0'), callersRuntimeDir());
  } catch (error) {
    if (bus !== undefined || !FUSETAP_BUS || !(error instanceof FusetapError)) throw error;
    throw new FusetapError(error.code, `$FUSETAP_BUS: ${error.message}`, error);
  }
}

/** The options with a bus that is given as an argument, instead of with `--bus`. @throws FusetapError USAGE if `--bus` names another */
export function withBus<Options extends SharedOptions>(word: string | undefined, options: Options): Options {
  if (word === undefined) return options;
  if (options.bus !== undefined && options.bus !== word) {
    throw new FusetapError('USAGE', `the buses ${word} and --bus ${options.bus} contradict each other`, {
      hint: 'give one of them',
    });
  }
  return { ...options, bus: word };
}

/** The transport to start a bus with; all vbds of a bus have the same. */
export function transportOption(): Option {
  const text =
    'how the bus speaks FUSE, if this command starts it: kernel (the default), or fuse-native (needs libfuse 2)';
  return new Option('--transport <NAME>', text).choices(['kernel', 'fuse-native']);
}

/** Whether other users may use the bus; all vbds of a bus have the same setting. */
export function allowOtherOption(): Option {
  return new Option(
    '--allow-other',
    'let other users use the bus, if this command starts it; file modes decide what they may do',
  );
}

/** The sectors in which the partition table counts. */
export function sectorSizeOption(): Option {
  const text = 'the sectors of the partition table, in bytes (default: a GPT tells, an MBR counts in 512 bytes)';
  return new Option('--sector-size <BYTES>', text)
    .choices(SECTOR_SIZES.map(String))
    .argParser((word: string): SectorBytes => {
      const found = SECTOR_SIZES.find((size) => String(size) === word);
      if (found !== undefined) return found;
      throw new InvalidArgumentError(`Allowed choices are ${SECTOR_SIZES.join(', ')}.`);
    });
}

/** Collects the values of an option that can be given several times, for commander. */
export function gather(word: string, before: readonly string[] = []): string[] {
  return [...before, word];
}

const OWN_STATUS = new WeakMap<Error, number>();

/** Gives wrong arguments of a command an exit status of its own, in place of that of USAGE. */
export function failsWith(command: Command, status: number): Command {
  return command.exitOverride((error) => {
    if (error.exitCode !== 0) OWN_STATUS.set(error, status);
    throw error;
  });
}

/** The exit status that `failsWith` gave the error of a command. */
export function ownStatusOf(error: Error): number | undefined {
  return OWN_STATUS.get(error);
}

/** Parses the number of a user or group, for commander. */
export function parseId(word: string): number {
  if (/^\d{1,10}$/.test(word) && Number(word) < 0xffff_ffff) return Number(word);
  throw new InvalidArgumentError('give a number, as id(1) prints it');
}

/** Parses permission bits, for commander. */
export function parseFileMode(word: string): string {
  if (/^0?[0-7]{3}$/.test(word)) return word;
  throw new InvalidArgumentError('give three octal digits, for example 0640');
}

/** Parses a duration in seconds, for commander. */
export function parseSeconds(word: string): number {
  const seconds = Number(word);
  if (word.trim() === '' || !Number.isFinite(seconds) || seconds < 0) {
    throw new InvalidArgumentError('give seconds, 0 or more, for example 10 or 0.5');
  }
  return seconds;
}

/** The meaning of each exit status, by code. */
const MEANINGS: Record<ErrorCode, string> = {
  FAILED: 'an I/O or system error',
  USAGE: 'wrong arguments, or an image that cannot be a disk (empty, a directory); nothing was changed',
  NOT_FOUND: 'no such bus, vbd, image or driver',
  BUSY: 'in use, slot taken, or forbidden by a sharing rule',
  DENIED: 'permission denied',
  UNSUPPORTED: 'not supported by this kernel, driver or transport',
  NO_SPACE: 'the ram limit is reached, or a disk is full',
};

/** A titled list in a help text: terms, each with its meaning. */
export interface HelpList {
  readonly title: string;
  /** a line before the list */
  readonly intro?: string;
  readonly rows: readonly (readonly [term: string, meaning: string])[];
}

/** What the help of a command has below its options. `--help` prints it, and the man pages are made from it. */
export interface HelpEnd {
  /** lists that only this command has, before the examples */
  readonly lists: readonly HelpList[];
  readonly examples: readonly string[];
  readonly exits: HelpList;
}

const ENDS = new WeakMap<Command, HelpEnd>();

/** The exit codes of every command that does not run another one. */
export const COMMON_EXITS: HelpList = {
  title: 'Exit codes',
  rows: [
    ['0', 'done'],
    ...Object.entries(EXIT_CODES).map(([code, exit]): [string, string] => [`${exit}`, MEANINGS[code as ErrorCode]]),
  ],
};

/** Ends a command's help with examples and its exit codes; `lists` come before them. */
export function endHelp(
  command: Command,
  examples: readonly string[],
  { exits = COMMON_EXITS, lists = [] }: Partial<Omit<HelpEnd, 'examples'>> = {},
): void {
  ENDS.set(command, { lists, examples, exits });
  const parts = [...lists.map(listText), section('Examples', examples), listText(exits)];
  command.addHelpText('after', parts.join('\n'));
}

/** What `endHelp` was given; undefined for a command of commander itself. */
export function helpEndOf(command: Command): HelpEnd | undefined {
  return ENDS.get(command);
}

function listText({ title, intro, rows }: HelpList): string {
  const width = Math.max(...rows.map(([term]) => term.length));
  const lines = rows.map(([term, meaning]) => `${term.padEnd(width)}  ${meaning}`);
  return section(title, intro === undefined ? lines : [intro, ...lines]);
}

function section(title: string, lines: readonly string[]): string {
  return `\n${title}:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}
