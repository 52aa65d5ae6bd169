/**
 * Sizes in words of the command line: `512`, `64K` (of 1024), `20MB` (of 1000). The grammar itself is in one place for
 * all of fusetap, drivers/parse-size.ts.
 */
import { FusetapError } from '../drivers/errors.js';
import { parseSize as parse } from '../mount/client/size.js';

/**
 * The size that a word means, in bytes.
 * @param what names it in messages, as `SIZE` or `--offset`
 * @throws FusetapError USAGE, also for less than `leastBytes`
 */
export function parseSize(word: string, what: string, leastBytes = 0): number {
  const sizeBytes = parse(word, what);
  if (sizeBytes >= leastBytes) return sizeBytes;
  throw new FusetapError('USAGE', `${what}: ${word} is too little`, { hint: `give ${leastBytes} or more` });
}
