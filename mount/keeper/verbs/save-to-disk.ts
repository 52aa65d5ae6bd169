/**
 * Saves a vbd to another disk: an image with a format, or a disk on a network.
 *
 *      the target opened and claimed (rule 8), as for an attach ──► writers to the vbd paused ──► the server opens it,
 *      copies, makes it durable, closes it ──► released
 *
 * The target has no file meanwhile: nobody but the copy writes to it. If the server dies, the next one copies again.
 */
import { FusetapError } from '../../../drivers/errors.js';
import type { DiskWish, SaveResult } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachCommand } from '../../server/commands.js';
import type { AttachContext } from '../sources/attach-context.js';
import { openSource } from '../sources/open-source.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdSource } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';
import { logCopy } from './log-copy.js';
import type { Pausing } from './pause.js';

export interface Saving {
  readonly bus: BusParts;
  readonly pausing: Pausing;
  readonly context: AttachContext;
}

export interface SaveToDisk {
  readonly to: DiskWish;
  /** data that is on the target may be lost */
  readonly force: boolean;
}

/** @throws FusetapError USAGE if its size is not that of the vbd; BUSY if it is in use, or has data; errors of an attach */
export async function saveToDisk(
  saving: Saving,
  vbd: Vbd,
  { to, force }: SaveToDisk,
  watcher: CopyWatcher,
): Promise<SaveResult> {
  const { bus, pausing, context } = saving;
  return await bus.activities.run(vbd, 'saving', watcher.signal, async (given) => {
    const told = logCopy(vbd.source.imagePath, { ...watcher, signal: given });
    const wish = { ...to, mode: 'w' as const, filters: [] };
    const { source } = await openSource(context, wish, told);
    try {
      refuseMemory(source);
      await whileTarget(saving, vbd, source, async (target) => {
        if (!force) await refuseData(saving, target, told);
        await pausing.withWritersPaused(vbd, given, () => copyTo(saving, target, told));
      });
    } finally {
      await source.holdings.release();
    }
    logEvent({ event: 'saved', vdev: vbd.vdev, path: source.imagePath, driver: source.driver });
    return { path: source.imagePath, size: vbd.size };
  });
}

/** What the server is told of a copy. */
interface Target {
  /** of the vbd */
  readonly nodeId: number;
  readonly attach: AttachCommand;
}

/** Gives the target a place in the ledger, which its driver may use. */
async function whileTarget(
  { bus, context }: Saving,
  vbd: Vbd,
  source: VbdSource,
  work: (target: Target) => Promise<void>,
): Promise<void> {
  const holdings = new Holdings();
  try {
    const place = { ...vbd, ...context.newNode(holdings, false), mode: 'w' as const, filters: [], source };
    const { size: _, ...unmeasured } = place;
    await work({ nodeId: vbd.nodeId, attach: attachCommand(unmeasured, bus.memories) });
  } finally {
    await holdings.release();
  }
}

async function refuseData({ bus }: Saving, target: Target, { signal }: CopyWatcher): Promise<void> {
  const command = { op: 'hasData' as const, ...target };
  const { hasData } = await bus.server.request<'hasData'>(command, { signal });
  if (!hasData) return;
  throw new FusetapError('BUSY', 'the target has data already', { hint: 'with --force it is overwritten' });
}

/** If the server dies, the next one copies again. */
async function copyTo({ bus }: Saving, target: Target, { signal, progress }: CopyWatcher): Promise<void> {
  await bus.server.request<'copyTo'>({ op: 'copyTo', ...target }, { signal, progress });
  signal.throwIfAborted();
}

function refuseMemory({ memories, driver }: VbdSource): void {
  if (memories.size === 0) return;
  throw new FusetapError('USAGE', `what is written with driver ${driver} is in memory only: it cannot keep a copy`, {
    hint: 'name a disk that keeps what is written, or a file',
  });
}
