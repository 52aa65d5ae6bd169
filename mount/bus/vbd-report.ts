/**
 * What the world is told of the vbds of a bus: `ls`, `show`, `stats`.
 */
import { join } from 'node:path';
import { readStats } from '../stats.js';
import type { BusParts } from './bus-parts.js';
import type { BusState, VbdInfo, VbdStats } from './interface.js';
import type { VbdFacts } from './ipc.js';
import { imageChanged } from './open-image.js';
import type { Vbd } from './vbd.js';

/** What does not change while a vbd is attached. */
export function vbdFacts({ place, transport, memories }: BusParts, vbd: Vbd): VbdFacts {
  return {
    bus: place.name,
    vdev: vbd.vdev,
    slot: vbd.slot,
    path: join(place.path, vbd.vdev),
    driver: vbd.driver,
    image: vbd.imagePath,
    mode: vbd.mode,
    size: vbd.size,
    transport,
    passthrough: vbd.backingId !== null,
    share: vbd.memory && memories.shareOf(vbd.memory),
    partitions: null,
  };
}

export async function vbdInfo(bus: BusParts, vbd: Vbd): Promise<VbdInfo> {
  const state = busState(bus);
  return {
    ...vbdFacts(bus, vbd),
    state: vbd.paused && state === 'running' ? 'paused' : state,
    opens: bus.ledger.countHandles().get(vbd.nodeId) ?? 0,
    keeperPid: process.pid,
    serverPid: bus.server.pid,
    restarts: bus.server.restarts,
    changedOutside: await isChangedOutside(bus, vbd),
  };
}

/** What requests did, of each vbd since its attach. */
export function vbdStats(bus: BusParts): VbdStats[] {
  return bus.vbds.sorted().map((vbd) => {
    const { vdev, passthrough } = vbdFacts(bus, vbd);
    return { bus: bus.place.name, vdev, passthrough, ...readStats(bus.statsFd, vbd.ledgerIndex) };
  });
}

export function busState({ failed, server }: BusParts): BusState {
  if (failed) return 'failed';
  return server.state === 'running' ? 'running' : 'restarting';
}

async function isChangedOutside({ vbds }: BusParts, vbd: Vbd): Promise<boolean> {
  try {
    return vbd.image !== null && (await imageChanged(vbd.image)) !== null;
  } catch (error) {
    // detached while it was looked at: its descriptor is closed
    if (!vbds.has(vbd)) return false;
    throw error;
  }
}
