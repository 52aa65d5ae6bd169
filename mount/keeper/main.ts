/**
 * The keeper process. It is started detached, with one JSON argument. It writes one line to descriptor 3: that the bus
 * answers, or why it could not start.
 */
import '../runtime/own-process.js';
import { closeSync, writeSync } from 'node:fs';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { flockRelease, RLIMIT_CPU, RLIMIT_FSIZE, raiseLimit } from '../../system/libc.js';
import { UsersLimit } from '../ending/await-users.js';
import { tellAdministrator } from '../ending/tell-administrator.js';
import type { Patience } from '../holders/await-free.js';
import { STATS_BYTES } from '../ledger/counters.js';
import { LEDGER_BYTES } from '../ledger/ledger.js';
import { removeBusFiles, removeSocket } from '../runtime/bus-files.js';
import { takeStateLock } from '../runtime/bus-lock.js';
import { type BusPlace, makeBusDirectories, makeMountpoint } from '../runtime/bus-place.js';
import { keepEndedLog } from '../runtime/ended-logs.js';
import { StayFindable } from '../runtime/findable.js';
import { awaitAbandoned } from '../runtime/lifeline.js';
import { logEvent, useLog } from '../runtime/log.js';
import { collectWhenGrown } from './idle-heap.js';
import { Keeper, type KeeperOptions } from './keeper.js';
import { clearMountpoint } from './mountpoint.js';
import { refuseHidden } from './ownership.js';
import type { KeeperArgument } from './start.js';

const REPORT_FD = 3;

const LIFELINE_FD = 4;
/** processes that the command of `fusetap run` left in the background may be about to end */
const ABANDONED_PATIENCE_MS = 2_000;

/** how long a bus that was started for an attach waits for it: the client may have been killed */
const FIRST_ATTACH_LIMIT_MS = 10_000;

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

/** Mounts the bus and starts its server. If that fails for a known reason, nothing is left of the attempt. */
async function mountBus(options: KeeperOptions): Promise<Keeper> {
  const { place } = options;
  try {
    await makeBusDirectories(place, process.geteuid?.() ?? 0);
    makeMountpoint(place);
    useLog(place.stateDir);
    if (options.allowOther) refuseHidden(place.path);
    await clearMountpoint(place);
    return await Keeper.start(options);
  } catch (error) {
    // the log stays after an unexpected error
    removeBusFiles(place, { keepLog: !(error instanceof FusetapError) || error.code === 'FAILED' });
    throw error;
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

/** Ends the bus on a signal. At a shutdown, what uses the bus is stopped at the same time: then it waits for that. */
function endOnSignals(keeper: Keeper, usersLimit: UsersLimit, endUnattended: (how: string) => void): void {
  const patience = new AbortController();
  let wait: Promise<void> | null = null;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      logEvent({ event: 'signal', signal });
      // a person who sends a second signal does not want to wait; systemd sends SIGHUP right behind SIGTERM
      if (wait !== null && signal !== 'SIGHUP') patience.abort();
      wait ??= keeper.awaitUsersAtStop(usersLimit, patience.signal);
      const end = (): void => endUnattended(`signal ${signal}`);
      wait.then(end, end);
    });
  }
}

async function run({ persistent, transport, allowOther, bus, lifeline, ...where }: KeeperArgument): Promise<void> {
  const place: BusPlace = { name: bus, ...where };
  raiseLimits();
  const usersLimit = new UsersLimit();
  const lockFd = await takeStateLock(place);
  // the code that checks requests takes as long to load as Node itself: it loads while the server starts
  const loading = import('../control/http-server.js');
  loading.catch(() => {});
  const keeper = await mountBus({ place, lockFd, persistent, transport, allowOther });
  /** The bus is mounted, but cannot be controlled. Without this, its server would stay as an orphan. */
  const undo = async (error: unknown): Promise<never> => {
    await keeper.end();
    removeBusFiles(place, { keepLog: true });
    throw error;
  };
  const { createControl } = await loading.catch(undo);
  let ended = false;
  /** what ended it, if no client asked for that: so none can be told what went wrong */
  let unattended: string | null = null;
  const end = async (): Promise<void> => {
    if (ended) return;
    ended = true;
    findable.end();
    // nobody can connect any more; a client that does not find the socket waits for the lock
    removeSocket(place, 'control.sock');
    await keeper.end().catch((error: unknown) => console.error('while the bus was removed:', error));
    const lost = unattended === null ? [] : keeper.notDurable;
    const isLost = lost.length > 0 || keeper.hasLostUnseen;
    logEvent({ event: 'ended', how: unattended ?? keeper.endedHow, durable: keeper.isDurable });
    await keeper.feed.end();
    if (!isLost) keepEndedLog(place);
    removeBusFiles(place, { keepLog: isLost });
    await tellAdministrator(lost);
    // a server that hangs with a disk would keep the lock as long as the disk hangs; else the lock is released when the
    // last process exits, so a client that waits for it finds no process left
    if (keeper.serverMayHang) flockRelease(lockFd);
    process.exit(isLost ? 1 : 0);
  };
  const endUnattended = (how: string, patience?: Patience): void => {
    unattended ??= how;
    keeper.detachAll(true, patience).then(end, end);
  };
  keeper.onEndByItself(() => void end());
  const control = createControl(keeper, () => void end());
  const { books } = keeper;
  const rewrite = (): Promise<void> => keeper.rewrite();
  const findable = new StayFindable({ place, control, socket: 'control.sock', lockFd, books, rewrite });
  await findable.listen().catch(undo);
  endOnSignals(keeper, usersLimit, endUnattended);
  if (lifeline) {
    void awaitAbandoned(LIFELINE_FD, place.path).then(() => {
      logEvent({ event: 'abandoned' });
      endUnattended('abandoned by fusetap run', { waitMs: ABANDONED_PATIENCE_MS });
    });
  }
  collectWhenGrown();
  const endIfUnused = (): void => {
    if (keeper.endIfIdle()) void end();
  };
  if (report({ ok: true, pid: process.pid })) setTimeout(endIfUnused, FIRST_ATTACH_LIMIT_MS).unref();
  else endIfUnused();
}

run(JSON.parse(process.argv[2] ?? '') as KeeperArgument).catch((error: unknown) => {
  const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
  if (known.code === 'FAILED') console.error(error);
  report({ error: known.toJSON() });
  process.exit(1);
});
