/**
 * The keeper process begins. It is started detached, with one JSON argument. It writes one line to descriptor 3: that the bus
 * answers, or why it could not start.
 *
 *      lock ─► mount ─► the first server is started ─► run-bus.ts is loaded ─► the keeper runs
 *                                   └────────────────── it loads, too ───────────────┘
 */
import '../runtime/own-process.js';
import { closeSync, writeSync } from 'node:fs';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { RLIMIT_CPU, RLIMIT_FSIZE, raiseLimit } from '../../system/libc.js';
import { STATS_BYTES } from '../ledger/counters.js';
import { LEDGER_BYTES } from '../ledger/ledger.js';
import { removeBusFiles } from '../runtime/bus-files.js';
import { takeStateLock } from '../runtime/bus-lock.js';
import { type BusPlace, makeBusDirectories, makeMountpoint } from '../runtime/bus-place.js';
import { useLog } from '../runtime/log.js';
import { abandonBus, type BegunBus, beginBus, type KeeperOptions } from './beginning.js';
import { clearMountpoint } from './mountpoint.js';
import { refuseHidden } from './ownership.js';
import type { KeeperArgument } from './start.js';

const REPORT_FD = 3;

/** @returns false if the process that started us is gone */
function report(line: object): boolean {
  try {
    writeSync(REPORT_FD, `${JSON.stringify(line)}\n`);
    closeSync(REPORT_FD);
    return true;
  } catch {
    return false;
  }
}

/**
 * The limits of the shell that started the bus must not apply to it: on the size of files, because images and ram
 * images are files, and on processor time.
 * @throws FusetapError FAILED if the hard limit is too low for a bus
 */
function raiseLimits(): void {
  raiseLimit(RLIMIT_CPU);
  const bytes = raiseLimit(RLIMIT_FSIZE);
  if (bytes === null || bytes >= Math.max(LEDGER_BYTES, STATS_BYTES)) return;
  throw new FusetapError('FAILED', `files may have at most ${bytes} bytes (ulimit -f): too little for a bus`, {
    hint: 'start it from a shell without that limit',
    operation: 'start',
  });
}

/** Mounts the bus and starts its first server. */
async function begin(options: KeeperOptions): Promise<BegunBus> {
  const { place } = options;
  await makeBusDirectories(place, process.geteuid?.() ?? 0);
  makeMountpoint(place);
  useLog(place.stateDir);
  if (options.allowOther) refuseHidden(place.path);
  await clearMountpoint(place);
  return await beginBus(options);
}

/** The rest of the keeper. If a part of the package is missing, nothing but the log is left of the bus. */
async function loadRest(place: BusPlace, begun: BegunBus): Promise<typeof import('./run-bus.js')> {
  try {
    return await import('./run-bus.js');
  } catch (error) {
    await abandonBus(place, begun);
    throw error;
  }
}

async function run({ persistent, transport, allowOther, bus, lifeline, ...where }: KeeperArgument): Promise<void> {
  const place: BusPlace = { name: bus, ...where };
  raiseLimits();
  const lockFd = await takeStateLock(place);
  const options: KeeperOptions = { place, lockFd, persistent, transport, allowOther };
  try {
    const begun = await begin(options);
    const { runBus } = await loadRest(place, begun);
    await runBus({ options, begun, lifeline: lifeline === true, report });
  } catch (error) {
    // the log stays after an unexpected error
    removeBusFiles(place, { keepLog: !(error instanceof FusetapError) || error.code === 'FAILED' });
    throw error;
  }
}

run(JSON.parse(process.argv[2] ?? '') as KeeperArgument).catch((error: unknown) => {
  const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
  if (known.code === 'FAILED') console.error(error);
  report({ error: known.toJSON() });
  process.exit(1);
});
