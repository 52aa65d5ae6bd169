/** Save: writes a consistent copy of a vbd to a file. All vbds that may write to its bytes are paused meanwhile. */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { deviceName } from '../../../system/proc.js';
import { within } from '../../../system/within.js';
import type { SaveResult } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { identityOf } from '../../images/open-image.js';
import { findVbdOfPid } from '../../runtime/bus-record.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { logCopy } from './log-copy.js';
import type { Pausing } from './pause.js';
import { type SaveContext, saveTo } from './place-copy.js';
import { refuseAbove } from './refuse-above.js';

/** a file system that hangs is told later */
const STAT_LIMIT_MS = 1_000;

/** Saves a vbd. The file keeps its old content until the copy is complete. A FIFO gets all bytes in order. */
export async function save(
  bus: BusParts,
  pausing: Pausing,
  vbd: Vbd,
  { path, force, watcher }: { path: string; force: boolean; watcher: CopyWatcher },
): Promise<SaveResult> {
  const saved = await bus.activities.run(vbd, 'saving', watcher.signal, async (given) => {
    await refuseAbove(bus, vbd, await deviceOf(dirname(path)));
    const { signal, progress } = logCopy(vbd.source.imagePath, { ...watcher, signal: given });
    const copy: SaveContext['copy'] = async (targetFd, { isFifo }) => {
      signal.throwIfAborted();
      await bus.server.request<'save'>({ op: 'save', nodeId: vbd.nodeId, targetFd, isFifo }, { signal, progress });
      signal.throwIfAborted();
    };
    return pausing.withWritersPaused(vbd, signal, () => saveTo(path, force, saveContext(bus, vbd, copy)));
  });
  logEvent({ event: 'saved', vdev: vbd.vdev, path: saved });
  return { path: saved, size: vbd.size };
}

/** Empty if it cannot be told: what is wrong with the path is told later. */
async function deviceOf(directory: string): Promise<string[]> {
  const dev = await within(
    stat(directory).then(({ dev }) => deviceName(dev)),
    STAT_LIMIT_MS,
    null,
  ).catch(() => null);
  return dev === null ? [] : [dev];
}

function saveContext(bus: BusParts, vbd: Vbd, copy: SaveContext['copy']): SaveContext {
  const { place, mountDev, memories, answering } = bus;
  return {
    ownBus: { ownDev: mountDev, mountpoint: place.path, answering },
    describePid: (pid, image) => findVbdOfPid(place.runtimeDir, pid, identityOf(image)),
    copy,
    replace: async (from, to, put) => {
      const { memory } = vbd.source;
      if (memory === null) put();
      else await memories.moveIdentity(memory, from, to, put);
    },
  };
}
