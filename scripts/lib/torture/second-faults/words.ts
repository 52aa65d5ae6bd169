/** The command line of a torture with second faults. */
import { parseArgs } from 'node:util';
import { FusetapError } from '../../../../drivers/errors.js';
import { quoted } from '../../../../drivers/quote.js';
import { ENDINGS } from './endings.js';
import { FAULTS } from './faults/index.js';
import { type Person, ROOT, USER } from './person.js';

const NAMED = [...FAULTS, ...ENDINGS];
const WIDTH = Math.max(...NAMED.map(({ name }) => name.length));

export const HELP = `scripts/torture --second-faults: writes to the disks of some buses and compares them all the time; kills, upgrades and
stops their servers, attaches and detaches vbds, and makes second faults at random:

${NAMED.map(({ name, about }) => `  ${name.padEnd(WIDTH)}  ${about}`).join('\n')}

  --minutes N     how long (default: 3)
  --buses N       how many (default: 3)
  --faults LIST   comma-separated: only these
  --seed N        repeats the choices of a run
  --as-user       run the buses as an ordinary user
  --help          print this help

Needs root. Prints what was done, how long commands took, and what was found. Exits with 0 if no bus ended unexpectedly, no
acknowledged byte was lost, each command ended within its limit and nothing is left, else with 1.`;

export interface Settings {
  readonly minutes: number;
  readonly buses: number;
  readonly chosen: ReadonlySet<string>;
  readonly seed: number;
  readonly person: Person;
}

/** @throws FusetapError USAGE; @returns null for --help */
export function parseSettings(args: string[]): Settings | null {
  const values = parseWords(args);
  if (values.help) return null;
  const minutes = Number(values.minutes ?? '3');
  if (!(minutes > 0)) throw new FusetapError('USAGE', `--minutes takes a number above 0, not ${values.minutes}`);
  const buses = wholeNumber('buses', values.buses ?? '3', 1);
  const seed = wholeNumber('seed', values.seed ?? `${Date.now() % 2 ** 31}`, 0);
  const all = NAMED.map(({ name }) => name);
  const names = values.faults?.split(',') ?? all;
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined) {
    throw new FusetapError('USAGE', `--faults: no fault ${quoted(unknown)}`, { hint: `there are ${all.join(', ')}` });
  }
  return { minutes, buses, chosen: new Set(names), seed, person: values['as-user'] ? USER : ROOT };
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new FusetapError('USAGE', `--${name} takes a whole number from ${least} on, not ${text}`);
}

interface Words {
  minutes?: string;
  buses?: string;
  faults?: string;
  seed?: string;
  'as-user'?: boolean;
  help?: boolean;
}

function parseWords(args: string[]): Words {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  try {
    const options = {
      minutes: text,
      buses: text,
      faults: text,
      seed: text,
      'as-user': flag,
      help: { ...flag, short: 'h' },
    };
    return parseArgs({ args, options }).values;
  } catch (error) {
    throw new FusetapError('USAGE', (error as Error).message, { hint: 'see scripts/torture --second-faults --help' });
  }
}
