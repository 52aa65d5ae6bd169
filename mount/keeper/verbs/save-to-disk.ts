/**
 * Saves a vbd to another disk: an image with a format, or a disk on a network.
 *
 *      the target opened and claimed (rule 8), as for an attach ──► writers to the vbd paused ──► the server opens it,
 *      copies, makes it durable, closes it ──► released
 *
 * The target has no file meanwhile: nobody but the copy writes to it. If the server dies, the next one copies again.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty } from '../../../drivers/graph.js';
import { named } from '../../../drivers/quote.js';
import type { DiskWish, SaveResult } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachCommand } from '../../server/commands.js';
import type { AttachContext } from '../sources/attach-context.js';
import { openSource } from '../sources/open-source.js';
import { DEATH_LIMIT as MOST_ATTEMPTS } from '../supervision/death-evidence.js';
import { isServerDeath } from '../supervision/server-process.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdSource } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';
import { logCopy } from './log-copy.js';
import type { Pausing } from './pause.js';
import { refuseAbove } from './refuse-above.js';

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
    const wish = { ...to, mode: 'w' as const, filters: [], isKept: true };
    const { source } = await openSource(context, wish, told);
    try {
      await refuseAbove(bus, vbd, devicesOf(source));
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
  /** for messages */
  readonly name: string;
  /** with what its driver has kept until now */
  attach(): AttachCommand;
  /** code that fusetap does not have takes part in it */
  readonly hasThirdParty: boolean;
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
    await work({
      nodeId: vbd.nodeId,
      name: source.imagePath === null ? `the disk of ${source.driver}` : named(source.imagePath),
      attach: () => attachCommand(unmeasured, bus.memories),
      hasThirdParty: hasThirdParty(source.graph) || hasThirdParty(vbd.source.graph),
    });
  } finally {
    await holdings.release();
  }
}

async function refuseData({ bus }: Saving, target: Target, { signal }: CopyWatcher): Promise<void> {
  const { nodeId, hasThirdParty: once } = target;
  const command = { op: 'hasData' as const, nodeId, attach: target.attach() };
  const { hasData } = await bus.server.request<'hasData'>(command, { signal, once });
  if (!hasData) return;
  throw new FusetapError('BUSY', `${target.name} has data already`, { hint: 'with --force it is overwritten' });
}

/**
 * If the server dies, the next one copies again: with what the driver of the target has kept since. Code of a third party is
 * not tried again, because it may be what the server died of.
 */
async function copyTo({ bus }: Saving, target: Target, { signal, progress }: CopyWatcher): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      const command = { op: 'copyTo' as const, nodeId: target.nodeId, attach: target.attach() };
      await bus.server.request<'copyTo'>(command, { signal, progress, once: true });
      return signal.throwIfAborted();
    } catch (error) {
      if (!isServerDeath(error) || target.hasThirdParty || attempt === MOST_ATTEMPTS) throw error;
    }
  }
}

/** The devices with the files of the target. */
function devicesOf({ files }: VbdSource): string[] {
  return [...files.values()].flatMap(({ image: { dev, rdev } }) => [dev, ...(rdev === null ? [] : [rdev])]);
}
