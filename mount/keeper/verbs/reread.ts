/**
 * Reread: reads the partition table of a vbd again, and gives it the partitions that the table has now. A partition
 * that has its old range stays the same file. One that has changed or is gone must not be in use, as for BLKRRPART.
 *
 *      table read → those that go are not in use, and cannot be opened → the others get nodes → server: one command
 */
import { FusetapError } from '../../../drivers/errors.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachContext } from '../sources/attach-context.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdPartition } from '../vbds/vbd.js';
import { partitionRefs } from './attach.js';
import { takePartitions } from './attach-partitions.js';
import type { Detaching } from './detach.js';

/** What a reread needs of the keeper. */
export interface Rereading {
  readonly bus: BusParts;
  readonly detaching: Detaching;
  /** new files have the owner and the mode of the vbd */
  readonly context: AttachContext;
}

/**
 * @returns remarks for the user, one line each
 * @throws FusetapError BUSY with the holders if a partition that has changed or is gone is in use, or if the name of a
 *   partition is taken by another vbd; nothing has changed then
 */
export async function reread(rereading: Rereading, vbd: Vbd, signal: AbortSignal): Promise<readonly string[]> {
  const { vbds, activities } = rereading.bus;
  return await activities.run(vbd, 'rereading', signal, async (given) => {
    vbds.reservePartitions(vbd);
    try {
      return await rereadNow(rereading, vbd, given);
    } finally {
      vbds.unreserve(vbd.slot);
    }
  });
}

async function rereadNow(
  { bus, detaching, context }: Rereading,
  vbd: Vbd,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { nodeId, sectorBytes } = vbd;
  const asked = bus.server.request<'partitions'>({ op: 'partitions', nodeId, sectorBytes });
  const table = await bus.images.whileAnswering(bus, vbd, asked);
  const fresh = new Holdings();
  const { partitions, notes } = takePartitions(context, vbd, table, fresh);
  const kept = new Set(partitions.map((partition) => partition.nodeId));
  const gone = (vbd.partitions ?? []).filter((partition) => !kept.has(partition.nodeId));
  try {
    await ensureUnused(detaching, gone, signal);
    try {
      signal.throwIfAborted();
      const facts = context.facts({ ...vbd, partitions });
      await bus.server.request<'repartition'>({
        op: 'repartition',
        nodeId,
        partitions: partitionRefs(partitions),
        facts,
      });
    } catch (error) {
      for (const partition of gone) await detaching.allowFileOpens(partition);
      throw error;
    }
  } catch (error) {
    await fresh.release();
    throw error;
  }
  vbd.partitions = partitions;
  vbd.holdings.own('the partitions of a new table', (usedByServer) => void fresh.release({ usedByServer }));
  for (const partition of gone) await partition.holdings.release();
  bus.record();
  logEvent({ event: 'reread', vdev: vbd.vdev, partitions: partitions.length });
  return notes;
}

async function ensureUnused(
  detaching: Detaching,
  partitions: readonly VbdPartition[],
  signal: AbortSignal,
): Promise<void> {
  try {
    await detaching.ensureFilesUnused(partitions, { waitMs: 0, signal });
  } catch (error) {
    if (!(error instanceof FusetapError && error.code === 'BUSY')) throw error;
    const message = `${error.message}, and the new table has it elsewhere or not at all`;
    throw new FusetapError('BUSY', message, { holders: error.holders, hint: 'close it there, and try again' });
  }
}
