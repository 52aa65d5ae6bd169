/**
 * Sizes on the command line: `512`, `64K` (of 1024), `20MB` (of 1000). All of fusetap uses the grammar in
 * drivers/parse-size.ts.
 */
import { FusetapError } from '../drivers/errors.js';
import { parseSize as parse } from '../mount/client/size.js';

/**
 * Parses a size.
 * @param what its name in messages: `SIZE` or `--offset`
 * @returns bytes
 * @throws FusetapError USAGE, also if it is less than `leastBytes`
 */
export function parseSize(word: string, what: string, leastBytes = 0): number {
  const sizeBytes = parse(word, what);
  if (sizeBytes >= leastBytes) return sizeBytes;
  throw new FusetapError('USAGE', `${what}: ${word} is too little`, { hint: `give ${leastBytes} or more` });
}
