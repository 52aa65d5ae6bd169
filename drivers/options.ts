/** Checks the options of the drivers that come with fusetap. */
import { FusetapError } from './errors.js';
import { quoted } from './quote.js';

/** @throws FusetapError USAGE for an option that the driver does not have */
export function takeOptions(driver: string, options: Readonly<Record<string, string>>, known: readonly string[]): void {
  const other = Object.keys(options).find((name) => !known.includes(name));
  if (other === undefined) return;
  throw new FusetapError('USAGE', `driver ${driver} has no option ${quoted(other)}`, {
    hint: known.length === 0 ? 'it has no options' : `its options are ${known.join(', ')}`,
  });
}

const MOST_SECONDS = 1_000_000;

/** @returns milliseconds @throws FusetapError USAGE @param what what the option takes, for the hint */
export function takeSeconds(option: NamedOption, text: string, what: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (seconds <= MOST_SECONDS) return seconds * 1000;
  throw wrongOption(option, text, what);
}

export interface NamedOption {
  readonly driver: string;
  readonly name: string;
}

/** The error for the value of an option. @param what what it takes */
export function wrongOption({ driver, name }: NamedOption, text: string, what: string): FusetapError {
  return new FusetapError('USAGE', `driver ${driver}: ${name} is ${quoted(text)}`, {
    hint: `give ${name}=VALUE, ${what}`,
  });
}
