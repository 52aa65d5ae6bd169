/** The command line of scripts/prove-format. */
import { parseArgs } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { PROOFS, type ProofName } from './proofs.js';

const names = Object.keys(PROOFS) as ProofName[];
const WIDTH = Math.max(...names.map((name) => name.length));

export const HELP = `scripts/prove-format WHAT: looks for mistakes of the drivers that write formats

${names.map((name) => `  ${name.padEnd(WIDTH)}  ${PROOFS[name].about}`).join('\n')}

  --driver NAME   default: the first of
${names.map((name) => `                    ${name}: ${PROOFS[name].drivers.join(', ')}`).join('\n')}
  --only WORD     only images with this word in their name: kills, cuts and errors
  --seconds N     how long (default: 60)
  --trials N      instead: how many trials
  --seed N        the first trial; each has the number of the one before, and 1 (default: from the time)
  --help          print this help

Each trial follows from its number alone, so --seed N --trials 1 repeats it. Prints each fault with its number. Exits with 0
if there was none, else with 1.`;

export interface Settings {
  readonly what: ProofName;
  readonly driver: string;
  readonly only: string;
  readonly firstSeed: number;
  /** how many trials; infinite if there is a time limit */
  readonly trials: number;
  readonly seconds: number;
}

/** @throws FusetapError USAGE; @returns null for --help */
export function parseSettings(args: readonly string[]): Settings | null {
  const { values, positionals } = parseWords(args);
  if (values.help) return null;
  const [what, ...others] = positionals;
  if (what === undefined || others.length > 0 || !Object.hasOwn(PROOFS, what)) {
    throw wrong(what === undefined ? 'say what to look for' : `it cannot look for ${quoted(positionals.join(' '))}`);
  }
  const drivers: readonly string[] = PROOFS[what as ProofName].drivers;
  const driver = values.driver ?? (drivers[0] as string);
  if (!drivers.includes(driver)) throw wrong(`${what} has no images for the driver ${quoted(driver)}`);
  const trials = values.trials === undefined ? Number.POSITIVE_INFINITY : wholeNumber('trials', values.trials, 1);
  const isTimed = values.trials === undefined || values.seconds !== undefined;
  return {
    what: what as ProofName,
    driver,
    only: values.only ?? '',
    firstSeed: wholeNumber('seed', values.seed ?? `${Date.now() % 2 ** 31}`, 0),
    trials,
    seconds: isTimed ? wholeNumber('seconds', values.seconds ?? '60', 1) : Number.POSITIVE_INFINITY,
  };
}

interface Words {
  values: { driver?: string; only?: string; seed?: string; trials?: string; seconds?: string; help?: boolean };
  positionals: string[];
}

function parseWords(args: readonly string[]): Words {
  const text = { type: 'string' } as const;
  const options = { driver: text, only: text, seed: text, trials: text, seconds: text } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { ...options, help: { type: 'boolean', short: 'h' } },
    });
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw wrong(`--${name} takes a whole number from ${least} on, not ${text}`);
}

function wrong(what: string): FusetapError {
  return new FusetapError('USAGE', what, { hint: 'see scripts/prove-format --help' });
}
