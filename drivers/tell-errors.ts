/**
 * Tells of the errors of a driver's disk. A client of the disk gets only an errno, so the message would be lost.
 */
import { constants } from 'node:os';
import type { RawDisk } from './driver.js';
import { errnoOf } from './errors.js';

const { EOPNOTSUPP, ENOSYS } = constants.errno;

/** Called with the name of the call that failed, and its error. */
export type TellError = (operation: string, error: unknown) => void;

/**
 * The same disk, but `tell` is called with each error before the caller gets it. Errors that only say that the disk
 * cannot zero or describe itself are not told: disk.ts does it in another way.
 */
export function tellErrors(raw: RawDisk, tell: TellError): RawDisk {
  const told = async <Result>(operation: string, call: () => Promise<Result>): Promise<Result> => {
    try {
      return await call();
    } catch (error) {
      if (![EOPNOTSUPP, ENOSYS].includes(errnoOf(error))) tell(operation, error);
      throw error;
    }
  };
  const disk: RawDisk = {
    size: raw.size,
    ...(raw.window && { window: raw.window }),
    read: (buffer, offset) => told('read', async () => raw.read(buffer, offset)),
    close: () => told('close', async () => raw.close()),
  };
  if (raw.write)
    disk.write = (buffer, offset, options) => told('write', async () => raw.write?.(buffer, offset, options));
  if (raw.flush) disk.flush = () => told('flush', async () => raw.flush?.());
  if (raw.zero) disk.zero = (offset, length, options) => told('zero', async () => raw.zero?.(offset, length, options));
  if (raw.extents)
    disk.extents = (offset, length) => told('extents', async () => (await raw.extents?.(offset, length)) ?? []);
  return disk;
}
