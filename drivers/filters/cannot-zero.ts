import { constants } from 'node:os';
import { FusetapError } from '../errors.js';

/** The error that makes disk.ts write zeros. */
export function cannotZero(): FusetapError {
  return new FusetapError('UNSUPPORTED', 'the driver cannot zero', { errno: constants.errno.EOPNOTSUPP });
}
