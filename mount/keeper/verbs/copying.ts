/**
 * Copies of a whole vbd: `save` makes one of it, `reset` one for it.
 */
import { FusetapError } from '../../../drivers/errors.js';
import type { SaveRequest, SaveResult } from '../../control/interface.js';
import { type CopyWatcher, inPercent } from '../../control/progress.js';
import { identityOf } from '../../images/open-image.js';
import { findVbdOfPid } from '../../runtime/bus-record.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attach } from './attach.js';
import type { AttachContext } from './attach-context.js';
import { recopyMemory } from './attach-memory.js';
import type { Leaving } from './detach.js';
import type { Holding } from './pause.js';
import { saveTo } from './place-copy.js';

export class Copying {
  readonly #bus: BusParts;
  readonly #leaving: Leaving;
  readonly #holding: Holding;

  constructor(bus: BusParts, leaving: Leaving, holding: Holding) {
    this.#bus = bus;
    this.#leaving = leaving;
    this.#holding = holding;
  }

  /** Makes a file a consistent copy of a vbd: all who may write to its bytes are held meanwhile. */
  save(vbd: Vbd, request: SaveRequest, watcher: CopyWatcher): Promise<SaveResult> {
    return this.#bus.activities.run(vbd, 'saving', watcher.signal, (signal) =>
      this.#saveNow(vbd, request, { ...watcher, signal }),
    );
  }

  async #saveNow(vbd: Vbd, { path, force }: SaveRequest, watcher: CopyWatcher): Promise<SaveResult> {
    const { place, mountDev, memories, server, answering } = this.#bus;
    const { nodeId, source } = vbd;
    const { signal, progress } = tellCopy(source.imagePath, watcher);
    const saved = await this.#holding.withWritersHeld(vbd, signal, () =>
      saveTo(path, force, {
        ownBus: { ownDev: mountDev, mountpoint: place.path, answering },
        describePid: (pid, image) => findVbdOfPid(place.runtimeDir, pid, identityOf(image)),
        copy: async (targetFd) => {
          signal.throwIfAborted();
          await server.request<'save'>({ op: 'save', nodeId, targetFd }, { signal, progress });
          signal.throwIfAborted();
        },
        replace: async (from, to, place) => {
          if (source.memory === null) place();
          else await memories.moveIdentity(source.memory, from, to, place);
        },
      }),
    );
    logEvent({ event: 'saved', vdev: vbd.vdev, path: saved });
    return { path: saved, size: vbd.size };
  }

  /** Copies the image of a ram vbd afresh; the old copy is kept until the new one is whole. */
  reset(vbd: Vbd, context: AttachContext, watcher: CopyWatcher): Promise<void> {
    return this.#bus.activities.run(vbd, 'resetting', watcher.signal, (signal) =>
      this.#resetNow(vbd, context, { ...watcher, signal }),
    );
  }

  async #resetNow(vbd: Vbd, context: AttachContext, watcher: CopyWatcher): Promise<void> {
    const { vbds, memories } = this.#bus;
    const { mode, filters, slot, vdev } = vbd;
    const { memory, driver, options, imagePath } = vbd.source;
    if (memory === null) throw notRam(vbd);
    vbds.reserve(slot, vbd.partitions !== null);
    const told = tellCopy(memory.image, watcher);
    try {
      await this.#leaving.free(vbd, { waitMs: 0, signal: watcher.signal });
      const fresh = await recopyMemory(context, { driver, options, image: memory.image }, memory, told);
      try {
        const share = memories.shareOf(fresh);
        // as it was: by threads, or passed through
        const passthrough = vbd.backingId === null ? 'off' : 'on';
        const request = { driver, image: imagePath, vdev, mode, options, filters: [...filters], share };
        const partitions = vbd.partitions !== null;
        // its file takes the name from the old one; where that fails, the old one has it still
        const again = await attach(context, { ...request, passthrough, partitions }, { slot, vdev }, told);
        await this.#leaving.close(vbd);
        vbds.add(again.vbd);
      } catch (error) {
        if (vbds.has(vbd)) await memories.undoRefill(fresh, memory);
        throw error;
      } finally {
        memories.release(fresh);
      }
      this.#bus.record();
      logEvent({ event: 'reset', vdev });
    } catch (error) {
      if (vbds.has(vbd) && vbd.leaving) await this.#leaving.show(vbd);
      throw error;
    } finally {
      vbds.unreserve(slot);
    }
  }
}

/** A copy that takes long is told of in the log too. */
export function tellCopy(image: string | null, { signal, progress }: CopyWatcher): CopyWatcher {
  const toLog = inPercent((percent) => logEvent({ event: 'copying', image, percent }));
  return {
    signal,
    progress: (doneBytes, totalBytes) => {
      toLog(doneBytes, totalBytes);
      progress(doneBytes, totalBytes);
    },
  };
}

function notRam({ vdev, source: { driver } }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} has no copy that could be made afresh: its driver is ${driver}`, {
    hint: 'reset is for ram vbds',
  });
}
