/**
 * Finds out whether a vbd is still in use. Only the kernel knows: it sends FORGET for a node when no open file,
 * mapping, O_PATH descriptor, loop device or cached name refers to it any more.
 *
 *      mark leaving ──► a helper looks the name up (ENOENT: the kernel drops its cached name) ──► FORGET: free
 *            ▲                                                                              │ none within a second
 *            └── once more, after an answered lookup: an earlier server may have died before it handled the FORGET;
 *                and again each time that a server dies meanwhile
 *                                                                                           │
 *                                                              mark removed, BUSY with the holders ◄───┘
 *
 * While the mark is set, new opens get ENOENT. So a vbd with known holders is not marked at all.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { type SideShell, shellWord } from '../../system/side-shell.js';
import { describeHolders, findVbdHolders } from './find-holders.js';

const FORGET_TIMEOUT_MS = 1000;
const POLL_MS = 100;
/** attempts that a death of the server made worthless are repeated for this time at least, and so often at most */
const VERDICT_MS = 3_000;
const MOST_REPLACED = 10;

/** How long to wait until a vbd is no longer in use. */
export interface Patience {
  readonly waitMs: number;
  /** aborted when the client has gone away */
  readonly signal?: AbortSignal;
}

/** The vbd to detach. */
export interface LeavingVbd {
  readonly vdev: string;
  readonly nodeId: number;
}

export interface DetachContext {
  readonly bus: string;
  readonly runtimeDir: string;
  /** see Transport.setLeaving */
  setLeaving(nodeId: number, leaving: boolean): Promise<boolean>;
  readonly mountpoint: string;
  /** device of the mount, as `MAJOR:MINOR` */
  readonly mountDev: string;
  /** the current inode number of a path, if it is not the node id; null if it cannot be found out */
  inodeOf?(path: string): Promise<number | null>;
  /** lets another process look the path up; resolves also if the lookup fails or takes too long */
  lookUp(path: string): Promise<void>;
  /** whether the vbd is paused: its users cannot go on, and perhaps not close it */
  isPaused(): boolean;
  /** the number of recorded open handles; records may be stale */
  opens(nodeId: number): number;
  /** how many servers were replaced so far */
  restarts(): number;
  /** resolves to true when the node is forgotten, to false after the time or when the signal is aborted */
  awaitForget(nodeId: number, timeoutMs: number, signal?: AbortSignal): Promise<boolean>;
}

/**
 * Resolves when the vbd is not in use and cannot be opened any more, because it is marked leaving.
 * @param patience how long to wait until it is not in use; its signal ends the wait sooner
 * @throws FusetapError BUSY with the holders if it is still in use then; the reason of the signal. It can be opened again
 */
export async function awaitFree(context: DetachContext, vbd: LeavingVbd, { waitMs, signal }: Patience): Promise<void> {
  const deadline = Date.now() + waitMs;
  const limits = { deadline, signal };
  for (;;) {
    signal?.throwIfAborted();
    const holders = context.opens(vbd.nodeId) > 0 ? await holdersOf(context, vbd) : [];
    if (holders.length === 0 && (await tryFree(context, vbd, limits))) return;
    if (Date.now() >= deadline) throw await busy(context, vbd);
    await delay(POLL_MS);
  }
}

async function holdersOf(context: DetachContext, vbd: LeavingVbd): Promise<Holder[]> {
  const path = join(context.mountpoint, vbd.vdev);
  const ino = (await context.inodeOf?.(path)) ?? vbd.nodeId;
  const [holders = []] = await findVbdHolders([{ mountDev: context.mountDev, ino, path }], context.runtimeDir);
  return holders;
}

async function busy(context: DetachContext, vbd: LeavingVbd): Promise<FusetapError> {
  const holders = await holdersOf(context, vbd);
  const inUse = `${vbd.vdev} on bus ${context.bus} is in use by ${describeHolders(holders)}`;
  if (context.isPaused()) {
    const message = `${inUse}; it is paused, so their I/O waits`;
    return new FusetapError('BUSY', message, { hint: 'resume it, so that they can go on and close it', holders });
  }
  return new FusetapError('BUSY', inUse, {
    hint: 'close it there, or wait with --wait SECONDS, or cut it off with --force',
    holders,
  });
}

interface Limits {
  /** as Date.now() counts */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
}

/** @throws the reason of the signal; it can be opened again then */
async function tryFree(context: DetachContext, vbd: LeavingVbd, { deadline, signal }: Limits): Promise<boolean> {
  const { nodeId } = vbd;
  const path = join(context.mountpoint, vbd.vdev);
  const verdictBy = Math.max(deadline, Date.now() + VERDICT_MS);
  let replaced = 0;
  for (let attempt = 0; attempt < 2; ) {
    if (attempt + replaced > 0) await context.lookUp(path);
    signal?.throwIfAborted();
    const before = context.restarts();
    const forgotten = context.awaitForget(nodeId, FORGET_TIMEOUT_MS, signal);
    if (!(await context.setLeaving(nodeId, true))) return true;
    await context.lookUp(path);
    if (await forgotten) return true;
    await context.setLeaving(nodeId, false);
    signal?.throwIfAborted();
    // a server that died meanwhile may have read the FORGET, so this attempt says nothing
    const saysNothing = context.restarts() !== before;
    if (saysNothing && replaced < MOST_REPLACED && Date.now() < verdictBy) replaced += 1;
    else attempt += 1;
  }
  return false;
}

/**
 * Lets another process look the path up, because keeper and server must never wait for their own mount. Resolves also
 * if the path is not there or the lookup takes too long.
 */
export async function lookUp(shell: SideShell, path: string): Promise<void> {
  await shell.run(`timeout -s KILL ${FORGET_TIMEOUT_MS / 1000} test -e ${shellWord(path)}`);
}

/** Frees all vbds or none: if one is in use, those freed before it are shown again. */
export async function freeAll<Vbd>(
  vbds: readonly Vbd[],
  { free, show }: { free(vbd: Vbd): Promise<void>; show(vbd: Vbd): Promise<unknown> },
): Promise<void> {
  const freed: Vbd[] = [];
  try {
    for (const vbd of vbds) {
      await free(vbd);
      freed.push(vbd);
    }
  } catch (error) {
    for (const vbd of freed) await show(vbd);
    throw error;
  }
}
