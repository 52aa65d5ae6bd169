/**
 * Whether anybody still holds a vbd. The truth is the kernel's: it sends FORGET for a node when no open file, mapping,
 * O_PATH descriptor, loop device or cached name refers to it any more.
 *
 *      mark leaving ──► a helper looks the name up (ENOENT: the kernel drops what it had cached) ──► FORGET? free
 *            ▲                                                                              │ none within a second
 *            └── once more, with one lookup answered in between: the FORGET may have died with an earlier server
 *                                                                                           │
 *                                                              mark taken back, BUSY, holders named ◄──┘
 *
 * While the mark stands new opens get ENOENT, so what plainly has holders is not marked at all.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { type SideShell, shellWord } from '../../system/side-shell.js';
import { describeHolders, findVbdHolders } from './find-holders.js';

const FORGET_TIMEOUT_MS = 1000;
const POLL_MS = 100;

/** How long somebody waits for those who hold a vbd. */
export interface Patience {
  readonly waitMs: number;
  /** aborted when the client has gone away */
  readonly signal?: AbortSignal;
}

/** The vbd that is to go. */
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
  /** of the mount, as `MAJOR:MINOR` */
  readonly mountDev: string;
  /** its inode number as it is now, where that is not its node id; null where it cannot be found out */
  inodeOf?(path: string): Promise<number | null>;
  /** has another process look the path up; resolves also where that fails, or takes too long */
  lookUp(path: string): Promise<void>;
  /** recorded open handles, which may be stale */
  opens(nodeId: number): number;
  /** resolves to true when the node is forgotten, to false after the time */
  awaitForget(nodeId: number, timeoutMs: number): Promise<boolean>;
}

/**
 * Resolves when nobody holds the vbd and nobody can open it any more: it is marked leaving.
 * @param patience how long to wait for holders to let go; its signal ends that sooner
 * @throws FusetapError BUSY with the holders, where it is still held after that; it can be opened again then
 */
export async function awaitFree(context: DetachContext, vbd: LeavingVbd, { waitMs, signal }: Patience): Promise<void> {
  const deadline = Date.now() + waitMs;
  for (;;) {
    signal?.throwIfAborted();
    const holders = context.opens(vbd.nodeId) > 0 ? await holdersOf(context, vbd) : [];
    if (holders.length === 0 && (await tryFree(context, vbd))) return;
    if (Date.now() >= deadline) throw await busy(context, vbd);
    await delay(POLL_MS);
  }
}

async function holdersOf(context: DetachContext, vbd: LeavingVbd): Promise<Holder[]> {
  const path = join(context.mountpoint, vbd.vdev);
  const ino = (await context.inodeOf?.(path)) ?? vbd.nodeId;
  return await findVbdHolders({ mountDev: context.mountDev, ino, path }, context.runtimeDir);
}

async function busy(context: DetachContext, vbd: LeavingVbd): Promise<FusetapError> {
  const holders = await holdersOf(context, vbd);
  return new FusetapError('BUSY', `${vbd.vdev} on bus ${context.bus} is in use by ${describeHolders(holders)}`, {
    hint: 'close it there, or wait with --wait SECONDS, or cut it off with --force',
    holders,
  });
}

async function tryFree(context: DetachContext, vbd: LeavingVbd): Promise<boolean> {
  const { nodeId } = vbd;
  const path = join(context.mountpoint, vbd.vdev);
  for (let attempt = 0; attempt < 2; attempt++) {
    if (attempt > 0) await context.lookUp(path);
    const forgotten = context.awaitForget(nodeId, FORGET_TIMEOUT_MS);
    if (!(await context.setLeaving(nodeId, true))) return true;
    await context.lookUp(path);
    if (await forgotten) return true;
    await context.setLeaving(nodeId, false);
  }
  return false;
}

/**
 * Has another process look the path up: who serves a mount, or keeps its server, must never wait for it. Resolves also when
 * the path is not there, or takes longer than it may.
 */
export async function lookUp(shell: SideShell, path: string): Promise<void> {
  await shell.run(`timeout -s KILL ${FORGET_TIMEOUT_MS / 1000} test -e ${shellWord(path)}`);
}

/** Frees all, or none: where one is held, those before it are shown again. */
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
