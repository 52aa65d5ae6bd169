/**
 * Loads the code of a driver by its name, when it is first needed.
 */
import { isAbsolute } from 'node:path';
import type { Driver } from './driver.js';
import { FusetapError, LOAD_CODE } from './errors.js';
import { driverNames, factsOf } from './names.js';
import { quoted } from './quote.js';

/**
 * The driver of that name, or the third-party driver in the file of that absolute path.
 * @throws FusetapError NOT_FOUND; FAILED, see isCodeMissing; for a third-party driver also FAILED and UNSUPPORTED
 */
export async function loadDriver(name: string): Promise<Driver> {
  const facts = factsOf(name);
  if (facts !== undefined) return (await ownCode(name, facts.load())).default;
  if (isAbsolute(name)) return (await ownCode(name, import('./third-party.js'))).loadThirdParty(name);
  throw new FusetapError('NOT_FOUND', `no such driver: ${quoted(name)}`, {
    hint: `the drivers are ${driverNames.join(', ')}`,
    operation: 'load driver',
  });
}

/**
 * Loads the code of the drivers before anybody asks for it. After an update of fusetap, a process of the old version cannot
 * load it any more.
 * @throws what the import of a module throws
 */
export async function preloadDrivers(): Promise<void> {
  for (const name of driverNames) {
    const facts = factsOf(name);
    if (facts?.needsPackage !== true) await facts?.load();
  }
}

/** Loads code of this package. It may fail for a moment, while the package is replaced or no descriptor is left. */
async function ownCode<Module>(driver: string, loading: Promise<Module>): Promise<Module> {
  try {
    return await loading;
  } catch (cause) {
    throw new FusetapError('FAILED', `the code for driver ${driver} cannot be loaded: ${(cause as Error).message}`, {
      hint: 'if fusetap was updated, fusetap upgrade; if it is being updated, try again; otherwise install it again',
      operation: LOAD_CODE,
      cause,
    });
  }
}
