/**
 * The drivers by name: one line each. A driver's code is loaded when it is first asked for.
 */
import { isAbsolute } from 'node:path';
import type { Driver } from './driver.js';
import { FusetapError, LOAD_CODE } from './errors.js';

const BUILT_IN = {
  aio: async (): Promise<Driver> => (await import('./aio/index.js')).default,
  ram: async (): Promise<Driver> => (await import('./ram/index.js')).default,
  sync: async (): Promise<Driver> => (await import('./sync/index.js')).default,
} as const;

type BuiltInName = keyof typeof BUILT_IN;

/** The names of the drivers that come with fusetap, in alphabetical order. */
export const driverNames = Object.keys(BUILT_IN) as readonly string[];

/**
 * The driver of that name, or the third-party driver in the file of that absolute path.
 * @throws FusetapError NOT_FOUND; FAILED, see isCodeMissing; for a third-party driver also FAILED and UNSUPPORTED
 */
export async function loadDriver(name: string): Promise<Driver> {
  // hasOwn: "constructor" is no driver
  if (Object.hasOwn(BUILT_IN, name)) return await ownCode(name, BUILT_IN[name as BuiltInName]());
  if (isAbsolute(name)) return (await ownCode(name, import('./third-party.js'))).loadThirdParty(name);
  throw new FusetapError('NOT_FOUND', `no such driver: ${JSON.stringify(name)}`, {
    hint: `the drivers are ${driverNames.join(', ')}`,
    operation: 'load driver',
  });
}

/** Loads code of this package. It may be away for a moment, while the package is replaced or descriptors are used up. */
async function ownCode<Module>(driver: string, loading: Promise<Module>): Promise<Module> {
  try {
    return await loading;
  } catch (cause) {
    throw new FusetapError('FAILED', `the code for driver ${driver} cannot be loaded: ${(cause as Error).message}`, {
      hint: 'try again if fusetap is being updated, otherwise install it again',
      operation: LOAD_CODE,
      cause,
    });
  }
}
