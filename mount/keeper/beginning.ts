/**
 * The beginning of a bus: its mount, the memory that outlives servers, and its first server. That server loads while the
 * keeper loads the rest of its own code, so this file and what it imports are few.
 */
import { setIoFlusher } from '../../system/libc.js';
import { within } from '../../system/within.js';
import type { TransportName } from '../control/interface.js';
import { clearDeadMounts } from '../fuse/mounting/dead-mounts.js';
import type { KernelMount } from '../fuse/mounting/device.js';
import { createStats } from '../ledger/counters.js';
import { createLedger } from '../ledger/ledger.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { ServerStart } from '../server/commands.js';
import { mountBus, releaseMount } from './mounting.js';
import { ServerProcess } from './supervision/server-process.js';

/** how long a server that was killed may take to exit */
const KILL_LIMIT_MS = 5_000;

export interface KeeperOptions {
  readonly place: BusPlace;
  /** the lock on the bus */
  readonly lockFd: number;
  /** the bus stays when its last vbd is detached */
  readonly persistent: boolean;
  /** the same for all vbds, as long as the bus lives */
  readonly transport: TransportName;
  /** other users may use the bus */
  readonly allowOther: boolean;
}

/** The part of the start message that does not depend on the mount. */
export type PassedToServers = Omit<ServerStart, 'mapsFiles' | 'deviceFds' | 'aliveFd' | 'passingFd'>;

export interface BegunBus {
  readonly mount: KernelMount;
  readonly passed: PassedToServers;
  /** for the supervisor, which listens to it; null if it could not be started: the supervisor tries again */
  readonly server: ServerProcess | null;
}

/** @throws FusetapError DENIED, UNSUPPORTED */
export async function beginBus(options: KeeperOptions): Promise<BegunBus> {
  const { place, transport, allowOther, lockFd } = options;
  const mount = await mountBus(options);
  try {
    const [ledgerFd, statsFd] = [createLedger(), createStats()];
    // write-back may wait for the server, so the server's allocations must not wait for write-back; children inherit it
    setIoFlusher();
    const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, sinceMs: Date.now() };
    const passed = { place, transport, keeperPid: process.pid, ledgerFd, statsFd, lockFd, allowOther, owner };
    return { mount, passed, server: startFirst(passed, mount) };
  } catch (error) {
    await abandonBus(place, { mount, server: null });
    throw error;
  }
}

function startFirst(passed: PassedToServers, { deviceFds, aliveFd }: KernelMount): ServerProcess | null {
  try {
    return new ServerProcess({ ...passed, deviceFds, aliveFd, mapsFiles: true }, null);
  } catch {
    return null;
  }
}

/** Removes a mount whose server did not start. With its server ended and its descriptors closed, the mount is dead. */
export async function abandonBus(
  place: BusPlace,
  { mount, server }: Pick<BegunBus, 'mount' | 'server'>,
): Promise<void> {
  if (server !== null) await within(server.kill(), KILL_LIMIT_MS, undefined);
  releaseMount(mount);
  await clearDeadMounts(place.path);
}
