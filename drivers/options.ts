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
