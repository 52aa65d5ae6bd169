/** The command line of scripts/xen-trial. */
import { parseArgs } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { SCENARIOS, type Scenario } from './scenarios.js';

export const HELP = `scripts/xen-trial: boots a real Xen dom0 in QEMU, and tries fusetap there with xl and guests

  --scenarios LIST   only these, with commas between them (default: all)
  --list             print the scenarios
  --write            write the table into docs/from-tapdisk.md; takes all scenarios
  --timeout MINUTES  the limit for the whole run, without the build of the dom0 (default: 120)
  --rebuild          build the dom0 again, with Debian's present packages
  --keep             keep the disks and the logs of the run, and print where they are (default: the logs of a run that fails)
  --help             print this help

The dom0 is a Debian 12 with its Xen 4.17 and a kernel of its backports. The first run builds it, as root, from the Debian
mirror that apt uses, and keeps it in node_modules/.cache/xen-trial. fusetap is packed from this checkout and installed in the
dom0 at each run. No KVM is needed: QEMU emulates the CPU, which takes most of an hour.

Prints a table: scenario, result, seconds of the dom0's clock. Exits with 0 if all are ok, else with 1.`;

export interface Settings {
  readonly scenarios: readonly Scenario[];
  readonly timeoutMs: number;
  readonly keep: boolean;
  readonly rebuild: boolean;
  readonly write: boolean;
}

export type Wish = Settings | 'help' | 'list';

/** @throws FusetapError USAGE */
export function parseSettings(args: readonly string[]): Wish {
  const values = parseWords(args);
  if (values.help) return 'help';
  if (values.list) return 'list';
  const { keep = false, rebuild = false, write = false } = values;
  if (write && values.scenarios !== undefined)
    throw wrong('--write writes the table of all scenarios: omit --scenarios');
  const scenarios = values.scenarios === undefined ? SCENARIOS : chosen(values.scenarios);
  return { scenarios, timeoutMs: minutes(values.timeout ?? '120') * 60_000, keep, rebuild, write };
}

export function listText(): string {
  const width = Math.max(...SCENARIOS.map(({ name }) => name.length));
  return SCENARIOS.map(({ name, about }) => `${name.padEnd(width)}  ${about}`).join('\n');
}

interface Words {
  scenarios?: string;
  timeout?: string;
  keep?: boolean;
  rebuild?: boolean;
  write?: boolean;
  list?: boolean;
  help?: boolean;
}

function parseWords(args: readonly string[]): Words {
  const [text, flag] = [{ type: 'string' } as const, { type: 'boolean' } as const];
  const options = { scenarios: text, timeout: text, keep: flag, rebuild: flag, write: flag, list: flag } as const;
  try {
    return parseArgs({ args: [...args], options: { ...options, help: { ...flag, short: 'h' } } }).values;
  } catch (error) {
    throw wrong((error as Error).message);
  }
}

/** In the order of the list of all, whatever order they were named in. */
function chosen(list: string): readonly Scenario[] {
  const names = list.split(',');
  for (const name of names) {
    if (SCENARIOS.every((scenario) => scenario.name !== name))
      throw wrong(`--scenarios: no scenario ${quoted(name)}`, '--list');
  }
  return SCENARIOS.filter(({ name }) => names.includes(name));
}

function minutes(text: string): number {
  const value = Number(text);
  if (value > 0 && value <= 24 * 60) return value;
  throw wrong(`--timeout takes a number of minutes above 0, at most a day, not ${text}`);
}

function wrong(what: string, see = '--help'): FusetapError {
  return new FusetapError('USAGE', what, { hint: `see scripts/xen-trial ${see}` });
}
