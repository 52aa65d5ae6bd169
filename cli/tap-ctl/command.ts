/**
 * What the commands of tap-ctl share: the type of a command, its options (tapdisk's letters), and the parsers of their
 * values. A wrong argument is a USAGE error, so EINVAL.
 */
import { Command, CommanderError } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames, factsOf } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { runtimeDir } from '../../mount/client/index.js';
import type { TapImage, TapName } from '../../mount/tap/index.js';
import { imagePath } from '../image-path.js';
import { usageError } from '../usage-error.js';

/** An option: one letter. */
export interface Letter {
  /** what its value is; if omitted, the option takes none */
  readonly value?: string;
  /** for the man page */
  readonly meaning: string;
}

/** The options of a command. */
export type Letters = Readonly<Record<string, Letter>>;

/** The values by letter: a word, true, or nothing. */
export type Given = Readonly<Record<string, string | true | undefined>>;

export interface TapCommand {
  /** the text after `usage: ` */
  readonly usage: string;
  /** what it does, in a sentence or two; for the man page */
  readonly summary: string;
  readonly letters: Letters;
  run(given: Given): Promise<void> | void;
}

/** Letters that name a vbd. */
export const NAME_LETTERS = {
  p: { value: 'pid', meaning: 'the pid of the tapdisk' },
  m: { value: 'minor', meaning: 'the minor' },
} satisfies Letters;

/** `-t` of commands that wait. */
export const WAIT_LETTER: Letter = {
  value: 'seconds',
  meaning: 'wait until nobody uses the vbd, for at most this time',
};

const NO_EFFECT = 'accepted without effect';
const REFUSED = 'refused with EOPNOTSUPP';

/** Letters of `create` and `open` that choose the image. */
export const IMAGE_LETTERS: Letters = {
  a: { value: 'type:path', meaning: `the image and its driver: ${driverNames.join(', ')}` },
  R: { meaning: 'read-only' },
  D: { meaning: `no O_DIRECT: ${NO_EFFECT}, because no image is opened with O_DIRECT` },
  r: { meaning: `a read cache: ${NO_EFFECT}, because the page cache is the cache` },
  t: { value: 'seconds', meaning: `a time limit for requests: ${NO_EFFECT}, because no request times out` },
  e: { value: 'minor', meaning: REFUSED },
  2: { value: 'type:path', meaning: REFUSED },
  s: { meaning: REFUSED },
  C: { value: 'path', meaning: REFUSED },
};

export const IMAGE_USAGE = '<-a type:/path/to/image> [-R read-only] [-D] [-r] [-t seconds]';

/** Options of tapdisk that no bus supports. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  e: 'a parent on another tapdisk',
  2: 'a secondary image',
  s: 'a standby image',
  C: 'a log of changed blocks',
};

/** Parses the arguments of a command. @throws FusetapError USAGE */
export function parseLetters({ letters, usage }: TapCommand, words: readonly string[]): Given {
  const parser = new Command()
    .helpOption(false)
    .option('-h, --help')
    .allowExcessArguments()
    .showSuggestionAfterError(false)
    // commander's own message would be a second line
    .configureOutput({ writeErr: () => {} })
    .exitOverride();
  for (const [letter, { value }] of Object.entries(letters)) parser.option(`-${letter}${value ? ' <value>' : ''}`);
  const hint = `usage: ${usage}`;
  try {
    parser.parse([...words], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    throw usageError(error, hint);
  }
  const [unexpected] = parser.args;
  if (unexpected !== undefined) throw new FusetapError('USAGE', `unexpected argument ${quoted(unexpected)}`, { hint });
  return parser.opts<Given>();
}

/** The runtime directory of the calling user. */
export function ownRuntimeDir(): string {
  return runtimeDir(process.env, process.geteuid?.() ?? 0);
}

/** The vbd that -p and -m name. @throws FusetapError USAGE */
export function parseName(given: Given): TapName {
  return { runtimeDir: ownRuntimeDir(), pid: parseNumber(given, 'p'), minor: parseNumber(given, 'm') };
}

/** A required number: a command without a pid or a minor is a typing error. @throws FusetapError USAGE */
export function parseNumber(given: Given, letter: string): number {
  const value = findNumber(given, letter);
  if (value === null) throw new FusetapError('USAGE', `-${letter} is missing`, { hint: 'tap-ctl list shows numbers' });
  return value;
}

/** A number, or null if none is given. @throws FusetapError USAGE */
export function findNumber(given: Given, letter: string): number | null {
  const word = given[letter];
  if (word === undefined) return null;
  if (typeof word === 'string' && /^\d{1,9}$/.test(word)) return Number(word);
  throw new FusetapError('USAGE', `-${letter} ${quoted(String(word))} is not a number`, { hint: 'give digits' });
}

/** `-t`, in seconds. @throws FusetapError USAGE */
export function parseWait(given: Given): { waitSeconds?: number } {
  const waitSeconds = findNumber(given, 't');
  return waitSeconds === null ? {} : { waitSeconds };
}

/** The image that `-a TYPE:PATH` names; null if it is not given. @throws FusetapError USAGE */
export function findImage(given: Given): TapImage | null {
  const word = given.a;
  if (word === undefined) return null;
  const [, driver, path] = /^([a-z][a-z0-9-]*):(.+)$/s.exec(String(word)) ?? [];
  if (driver !== undefined && path !== undefined)
    return { driver, path: factsOf(driver)?.isRemote ? path : imagePath(path) };
  throw new FusetapError('USAGE', `-a ${quoted(String(word))} is not TYPE:PATH`, {
    hint: 'for example -a aio:/srv/disk.img',
  });
}

/** The image of `create` and `open`. @throws FusetapError USAGE, UNSUPPORTED */
export function parseImage(given: Given): { image: TapImage; readOnly: boolean } {
  for (const [letter, what] of Object.entries(UNSUPPORTED)) {
    if (given[letter] === undefined) continue;
    throw new FusetapError('UNSUPPORTED', `-${letter}: there is no ${what.replace(/^a /, '')} here`, {
      hint: `omit -${letter}`,
    });
  }
  // only its form is checked: fusetap never gives up a request
  findNumber(given, 't');
  const image = findImage(given);
  if (image === null) throw new FusetapError('USAGE', '-a is missing', { hint: 'name the image: -a TYPE:PATH' });
  return { image, readOnly: given.R === true };
}
