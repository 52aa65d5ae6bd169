/**
 * Parses sizes as losetup(8) and qemu-img take them:
 *
 *     4096, 0x1000                 bytes
 *     64K 64k 64KiB 64Ki           units of 1024: K, M, G, T, P
 *     64KB 64kb                    units of 1000
 *     1.5G                         a fraction of a unit, rounded down to whole bytes
 */
import { FusetapError } from './errors.js';
import { quoted } from './quote.js';

const HEXADECIMAL = /^0x[0-9a-f]{1,14}$/i;
const FORM = /^(\d{1,16})(?:\.(\d{1,16}))?(?:([kmgtp])(i?)(b?)|b)?$/i;
const UNITS = 'KMGTP';

/**
 * The size in bytes.
 * @param what the name of the value in messages, as `offset`
 * @throws FusetapError USAGE
 */
export function parseSize(text: string, what: string): number {
  const bytes = HEXADECIMAL.test(text) ? Number(text) : decimalBytes(text);
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new FusetapError('USAGE', `${what}: ${quoted(text)} is not a size`, {
    hint: 'give bytes, or a number with a unit: K, M, G, T (1024; also KiB, k) or KB, MB, GB, TB (1000), as 10M or 1.5GiB',
  });
}

/** @returns NaN if it is not a size */
function decimalBytes(text: string): number {
  const [, whole, fraction, unit, binary, byte] = FORM.exec(text) ?? [];
  if (whole === undefined || (fraction !== undefined && unit === undefined)) return Number.NaN;
  if (unit === undefined) return Number(whole);
  const base = byte && !binary ? 1000n : 1024n;
  const factor = base ** BigInt(UNITS.indexOf(unit.toUpperCase()) + 1);
  const digits = fraction ?? '';
  // exact, which floating point is not: 1.1K of 1024 is 1126.4
  return Number((BigInt(whole + digits) * factor) / 10n ** BigInt(digits.length));
}

/** the sizes that filters of a bus of version 0.1 can read */
const OLD_FORM = /^\d+(?:[KMGT]B?)?$/;

/** A size as a bus of any version can read it: unchanged if possible, else in bytes. @throws FusetapError USAGE */
export function sizeForBus(text: string, what: string): string {
  const bytes = parseSize(text, what);
  return OLD_FORM.test(text) ? text : String(bytes);
}
