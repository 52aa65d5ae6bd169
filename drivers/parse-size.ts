/** Parses sizes as people write them: 4096, 64K, 10M, 1G, 2T (powers of 1024) and 64KB, 10MB, 1GB, 2TB (of 1000). */
import { FusetapError } from './errors.js';
import { quoted } from './quote.js';

const FORM = /^(\d+)(?:([KMGT])(B?))?$/;

/**
 * The size in bytes.
 * @param what the name of the value in messages, as `offset`
 * @throws FusetapError USAGE
 */
export function parseSize(text: string, what: string): number {
  const [, digits, unit, isDecimal] = FORM.exec(text) ?? [];
  const power = unit === undefined ? 0 : 'KMGT'.indexOf(unit) + 1;
  const bytes = Number(digits) * (isDecimal ? 1000 : 1024) ** power;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new FusetapError('USAGE', `${what}: ${quoted(text)} is not a size`, {
    hint: 'give bytes, or a whole number followed by K, M, G, T (1024) or KB, MB, GB, TB (1000)',
  });
}
