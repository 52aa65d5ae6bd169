/** Options of creators, as `qemu-img create -o` has them. */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';

type Options = Readonly<Record<string, string>>;

/** @throws FusetapError USAGE for an option that the format does not have */
export function takeOnly(format: string, options: Options, known: readonly string[]): void {
  const other = Object.keys(options).find((name) => !known.includes(name));
  if (other === undefined) return;
  throw new FusetapError('USAGE', `a new ${format} image has no option ${quoted(other)}`, {
    hint: `its options are ${known.join(', ')}`,
  });
}

/** The choice for an option. @param choices the first is the default @throws FusetapError USAGE */
export function chosen<Choice extends string>(
  options: Options,
  name: string,
  choices: readonly [Choice, ...Choice[]],
): Choice {
  const word = options[name];
  if (word === undefined) return choices[0];
  const found = choices.find((choice) => choice === word);
  if (found !== undefined) return found;
  throw new FusetapError('USAGE', `${name}: it cannot be ${quoted(word)}`, { hint: `give ${choices.join(' or ')}` });
}

/** The power of 2 that an option is. @throws FusetapError USAGE */
export function powerOf2(value: number, name: string, { least, most }: { least: number; most: number }): number {
  const bits = Math.log2(value);
  if (Number.isInteger(bits) && value >= least && value <= most) return bits;
  throw new FusetapError('USAGE', `${name}: it cannot be ${value}`, {
    hint: `give a power of 2 from ${least} to ${most}`,
  });
}
