/** The command line of scripts/kill-each. */
import { parseArgs } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { randomSituation, SITUATIONS, type Situation } from '../../../test/crash/situations.js';
import { DRIVERS, type KillDriver } from './images.js';

/** the calls of a server that change files, and those that answer */
const CALLS = ['pwrite64', 'pwritev', 'pwritev2', 'fallocate', 'ftruncate', 'fdatasync', 'fsync', 'write', 'writev'];
const MOST_KILLS = 40;

export const HELP = `scripts/kill-each DRIVER [SITUATION …]: kills the server of a real bus at each system call of a situation

  DRIVER          ${DRIVERS.join(', ')}
  SITUATION       a part of its name, or a number for random requests (default: all)
  --only WORD     only images with this word in their name
  --calls LIST    the system calls, separated by commas (default: ${CALLS.join(',')})
  --most N        the most kills at one kind of call in a situation (default: ${MOST_KILLS})
  --seconds N     images and situations at random, until the time is up (default: all, in order; that takes hours)
  --list          print the situations
  --help          print this help

Needs root and strace(1). For each call, the server is killed before it is made for the first time in a thread, then the
second time, and so on until the situation ends alive. The clients must see no error. Then the vbd is compared, detached, and
its image judged, attached and detached again, and judged. Exits with 0 if all was right, else with 1.`;

export interface Settings {
  readonly driver: KillDriver;
  readonly situations: readonly Situation[];
  readonly only: string;
  readonly calls: readonly string[];
  readonly most: number;
  /** null: all images and situations, in order */
  readonly seconds: number | null;
}

/** @throws FusetapError USAGE; @returns a text to print instead */
export function parseSettings(args: readonly string[]): Settings | string {
  const { values, positionals } = parseWords(args);
  if (values.help) return HELP;
  if (values.list) return SITUATIONS.map(({ name }) => name).join('\n');
  const [driver, ...words] = positionals;
  if (driver === undefined) throw wrong('name a driver');
  if (!DRIVERS.includes(driver as KillDriver)) throw wrong(`there are no images for the driver ${quoted(driver)}`);
  return {
    driver: driver as KillDriver,
    situations: words.length === 0 ? SITUATIONS : words.flatMap(situationsOf),
    only: values.only ?? '',
    calls: values.calls?.split(',') ?? CALLS,
    most: wholeNumber('most', values.most ?? `${MOST_KILLS}`),
    seconds: values.seconds === undefined ? null : wholeNumber('seconds', values.seconds),
  };
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw wrong(`--${name} takes a whole number from 1 on, not ${text}`);
}

function situationsOf(word: string): readonly Situation[] {
  if (/^\d+$/.test(word)) return [randomSituation(Number(word))];
  const found = SITUATIONS.filter(({ name }) => name.includes(word));
  if (found.length === 0) throw wrong(`no situation is called ${quoted(word)}`);
  return found;
}

interface Words {
  values: { only?: string; calls?: string; most?: string; seconds?: string; list?: boolean; help?: boolean };
  positionals: string[];
}

function parseWords(args: readonly string[]): Words {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const options = {
    only: text,
    calls: text,
    most: text,
    seconds: text,
    list: flag,
    help: { ...flag, short: 'h' },
  } as const;
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options });
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

function wrong(what: string): FusetapError {
  return new FusetapError('USAGE', what, { hint: 'see scripts/kill-each --help' });
}
