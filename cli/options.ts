/**
 * What all commands share: the options before or after the command's name, their meaning, and the end of every help
 * text.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type ErrorCode, EXIT_CODES, FusetapError } from '../drivers/errors.js';
import { type BusPlace, resolveBus, runtimeDir } from '../mount/client/index.js';

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
  'a vdev, a slot number, or a path: of its file, its image, a directory where it is mounted, a loop device on it';

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

/** Collects the values of an option that can be given several times, for commander. */
export function gather(word: string, before: readonly string[] = []): string[] {
  return [...before, word];
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

/** Ends a command's help with examples and its exit codes. */
export function endHelp(command: Command, examples: readonly string[], exits: readonly string[] = commonExits()): void {
  const lines = (head: string, body: readonly string[]): string => `\n${head}\n${body.map((x) => `  ${x}`).join('\n')}`;
  command.addHelpText('after', `${lines('Examples:', examples)}\n${lines('Exit codes:', exits)}`);
}

function commonExits(): string[] {
  return ['0  done', ...Object.entries(EXIT_CODES).map(([code, exit]) => `${exit}  ${MEANINGS[code as ErrorCode]}`)];
}
