/**
 * The keeper process after its beginning (main.ts): starts the bus, answers its clients, and ends it.
 */
import { flockRelease } from '../../system/libc.js';
import { keepYoungHeapSmall } from '../../system/young-heap.js';
import { UsersLimit } from '../ending/await-users.js';
import { tellAdministrator } from '../ending/tell-administrator.js';
import type { Patience } from '../holders/await-free.js';
import { removeBusFiles, removeSocket } from '../runtime/bus-files.js';
import { keepEndedLog } from '../runtime/ended-logs.js';
import { StayFindable } from '../runtime/findable.js';
import { awaitAbandoned } from '../runtime/lifeline.js';
import { logEvent } from '../runtime/log.js';
import type { BegunBus, KeeperOptions } from './beginning.js';
import { collectWhenGrown } from './idle-heap.js';
import { Keeper } from './keeper.js';

const LIFELINE_FD = 4;
/** processes that the command of `fusetap run` left in the background may be about to end */
const ABANDONED_PATIENCE_MS = 2_000;

/** how long a bus that was started for an attach waits for it: the client may have been killed */
const FIRST_ATTACH_LIMIT_MS = 10_000;

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

/** What main.ts knows. */
export interface BusToRun {
  readonly options: KeeperOptions;
  readonly begun: BegunBus;
  /** descriptor 4 tells when the process that the bus is for has ended */
  readonly lifeline: boolean;
  /** tells the process that started the bus. @returns false if it is gone */
  report(line: object): boolean;
}

/** Starts the bus. If that fails, nothing but its files is left. */
export async function runBus({ options, begun, lifeline, report }: BusToRun): Promise<void> {
  const { place, lockFd } = options;
  const usersLimit = new UsersLimit();
  // the code that checks requests takes as long to load as Node itself: it loads while the server starts
  const loading = import('../control/http-server.js');
  loading.catch(() => {});
  const keeper = await Keeper.start(options, begun);
  /** The bus is mounted, but cannot be controlled. Without this, its server would stay as an orphan. */
  const undo = async (error: unknown): Promise<never> => {
    await keeper.end();
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
  keepYoungHeapSmall();
  collectWhenGrown();
  const endIfUnused = (): void => {
    if (keeper.endIfIdle()) void end();
  };
  if (report({ ok: true, pid: process.pid })) setTimeout(endIfUnused, FIRST_ATTACH_LIMIT_MS).unref();
  else endIfUnused();
}
