/**
 * Attach, step by step. If a step fails, the resources of the steps before it are released in reverse order.
 *
 *      slot reserved → source opened, claimed and repaired, or copied (ram) → disk opened in the server → partitions read
 *        → registered for passthrough → files shown
 */

import { fstatSync } from 'node:fs';
import { defined } from '../../../drivers/defined.js';
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty } from '../../../drivers/graph.js';
import { errnoName } from '../../../system/libc.js';
import type { AttachRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import {
  cannotPassThrough,
  type PassthroughCandidate,
  reasonNotToPassThrough,
  wantsPassthrough,
} from '../../fuse/mounting/passthrough.js';
import type { RamImages } from '../../ram/ram-images.js';
import type { AttachCommand, PartitionRef, ShowCommand, VbdFacts } from '../../server/commands.js';
import type { Slot } from '../../slots/slots.js';
import type { AttachContext } from '../sources/attach-context.js';
import { graphRef } from '../sources/graph-ref.js';
import { openSource } from '../sources/open-source.js';
import { isServerDeath } from '../supervision/server-process.js';
import { Holdings } from '../vbds/holdings.js';
import { bytesFd, type Vbd, type VbdPartition } from '../vbds/vbd.js';
import { type TakenPartitions, takePartitions } from './attach-partitions.js';

/** The vbd that was attached, and remarks for the user, one line each. */
export interface AttachedVbd {
  readonly vbd: Vbd;
  readonly notes: readonly string[];
}

/** Attaches to a slot that the caller has reserved. A disk that cannot be written is attached with mode r. */
export async function attach(
  context: AttachContext,
  request: AttachRequest,
  slot: Slot,
  watcher: CopyWatcher,
): Promise<AttachedVbd> {
  const { vbd, notes } = await attachAsAsked(context, request, slot, watcher);
  if (vbd !== null) return { vbd, notes };
  const again = await attachAsAsked(context, { ...request, mode: 'r' }, slot, watcher);
  if (again.vbd === null) throw new TypeError(`${slot.vdev} is refused even with mode r`);
  const all = [...notes, ...again.notes, `${slot.vdev} has mode r: its driver or a filter cannot write`];
  return { vbd: again.vbd, notes: [...new Set(all)] };
}

/** @returns vbd null if it cannot be written, and the request does not have mode r; nothing is attached then */
async function attachAsAsked(
  context: AttachContext,
  request: AttachRequest,
  slot: Slot,
  watcher: CopyWatcher,
): Promise<{ readonly vbd: Vbd | null; readonly notes: readonly string[] }> {
  const wish = { ...request, filters: request.filters ?? [] };
  const { source, notes } = await openSource(context, wish, watcher);
  const holdings = new Holdings();
  try {
    const node = context.newNode(holdings, wish.mode === 'r');
    const { mode, filters, sectorSize: sectorBytes = null } = wish;
    const place = { ...slot, mode, filters, sectorBytes, ...node, source, holdings };
    const shown = await openAndShow(context, request, place, watcher.signal);
    if (shown !== null) return { vbd: shown.vbd, notes: [...notes, ...shown.notes] };
    await holdings.release();
    await source.holdings.release();
    return { vbd: null, notes };
  } catch (error) {
    await holdings.release();
    await source.holdings.release();
    throw error;
  }
}

/**
 * Opens the disk in the server and shows its files. If that fails, the server does not have the disk.
 * @returns null if it cannot be written, and the request does not have mode r
 */
async function openAndShow(
  context: AttachContext,
  request: AttachRequest,
  place: OpenedVbd,
  signal: AbortSignal,
): Promise<AttachedVbd | null> {
  const { server, memories } = context;
  const once = hasThirdParty(place.source.graph);
  const { size, window, windowFile, readOnly } = await server.request<'attach'>(attachCommand(place, memories), {
    once,
  });
  try {
    if (readOnly && place.mode !== 'r') {
      await server.request<'detach'>({ op: 'detach', nodeId: place.nodeId });
      return null;
    }
    const opened = { ...place, size };
    const taken = request.partitions ? await readPartitions(context, opened) : null;
    const { holdings } = place;
    const vbd: Vbd = {
      ...{ ...opened, partitions: taken?.partitions ?? null, windowFile, backingId: null, mapId: null },
      ...{ broken: null, paused: false, leaving: false },
    };
    const candidate = { vdev: vbd.vdev, readOnly: vbd.mode === 'r', window, fileBytes: fileBytesOf(vbd) };
    vbd.backingId = await registerIfWanted(context, request, candidate, vbd);
    if (vbd.backingId === null && request.passthrough !== 'off') vbd.mapId = registerForMaps(context, candidate, vbd);
    holdings.own('the registration with the kernel', () => {
      const id = vbd.backingId ?? vbd.mapId;
      if (id !== null) context.unregister(id);
    });
    signal.throwIfAborted();
    const command = showCommand(vbd, context.facts(vbd), false);
    await withDiskOpen(context, vbd, () => server.request<'show'>(command));
    return { vbd, notes: taken?.notes ?? [] };
  } catch (error) {
    // a server that was started meanwhile may not have it
    await server
      .request<'detach'>({ op: 'detach', nodeId: place.nodeId })
      .catch((failure: unknown) => console.error('while undoing an attach:', failure));
    throw error;
  }
}

async function readPartitions(context: AttachContext, opened: OpenedVbd): Promise<TakenPartitions> {
  const { nodeId, holdings, sectorBytes } = opened;
  const ask = () => context.server.request<'partitions'>({ op: 'partitions', nodeId, sectorBytes });
  return takePartitions(context, opened, await withDiskOpen(context, opened, ask), holdings);
}

/** Sends a command for an open disk. If the server was replaced meanwhile, the new one opens the disk first. */
async function withDiskOpen<Result>(
  { server, memories }: AttachContext,
  vbd: OpenedVbd,
  ask: () => Promise<Result>,
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      const isLost = isServerDeath(error) || (error instanceof FusetapError && error.code === 'NOT_FOUND');
      if (!isLost || hasThirdParty(vbd.source.graph) || attempt === ATTEMPT_LIMIT) throw error;
    }
    const { broken } = await server.request<'attach'>(attachCommand(vbd, memories));
    if (broken !== null) throw new FusetapError('FAILED', `a new server cannot open ${vbd.vdev}: ${broken}`);
  }
}
const ATTEMPT_LIMIT = 3;

async function registerIfWanted(
  context: AttachContext,
  { passthrough = 'auto' }: AttachRequest,
  candidate: PassthroughCandidate,
  vbd: Vbd,
): Promise<number | null> {
  const { memory } = vbd.source;
  if (!wantsPassthrough(passthrough, candidate)) return null;
  const fd = bytesFd(vbd);
  if (fd === undefined) {
    if (passthrough === 'auto') return null;
    throw cannotPassThrough(candidate.vdev, 'its bytes are in memory below another driver');
  }
  // the kernel fills holes without asking, so memory for the whole image is reserved
  if (memory !== null && !candidate.readOnly && !(await context.memories.reserveWhole(memory))) {
    if (passthrough === 'auto') return null;
    throw cannotPassThrough(candidate.vdev, `all of its ${memory.sizeBytes} bytes do not fit below the ram limit`);
  }
  const id = context.register(fd);
  if (id > 0) return id;
  if (memory !== null && !candidate.readOnly) await context.memories.unreserveWhole(memory);
  // if the kernel refuses it, for whatever reason, threads serve the vbd
  if (passthrough === 'auto') return null;
  throw cannotPassThrough(candidate.vdev, `the kernel refuses it (${errnoName(-id)})`, -id);
}

/**
 * Lets the kernel map a read-only image, while threads answer its reads: shared mappings then work, and they show the
 * page cache of the image.
 * @returns null if it cannot be mapped, as without root
 */
export function registerForMaps(context: AttachContext, candidate: PassthroughCandidate, vbd: Vbd): number | null {
  const file = vbd.windowFile === null ? undefined : vbd.source.files.get(vbd.windowFile);
  if (file === undefined || !candidate.readOnly || reasonNotToPassThrough(candidate) !== null) return null;
  const id = context.register(file.image.fd);
  return id > 0 ? id : null;
}

function fileBytesOf({ windowFile, source, size }: Vbd): number {
  if (windowFile !== null) return source.files.get(windowFile)?.image.sizeBytes ?? size;
  return source.memory === null ? size : fstatSync(source.memory.fd).size;
}

/** The part of a vbd that is known when its disk is opened. */
type OpenedVbd = Omit<
  Vbd,
  'size' | 'windowFile' | 'backingId' | 'mapId' | 'partitions' | 'broken' | 'paused' | 'leaving'
> & {
  readonly size?: number;
};

/** The command to open a vbd's disk: at attach, and for each new server. */
export function attachCommand(vbd: OpenedVbd, memories: RamImages): AttachCommand {
  const { nodeId, ledgerIndex, vdev, mode, filters, size } = vbd;
  return {
    op: 'attach',
    nodeId,
    ledgerIndex,
    name: vdev,
    driver: vbd.source.driver,
    mode,
    disk: graphRef(vbd.source, memories),
    filters,
    ...defined({ size }),
  };
}

/** The command to show a vbd's files. @param inherited whether an earlier server has shown them */
export function showCommand(vbd: Vbd, facts: VbdFacts, inherited: boolean): ShowCommand {
  const { nodeId, backingId, mapId, leaving, paused, pausedFor = [] } = vbd;
  const partitions = partitionRefs(vbd.partitions ?? []);
  const pause = { held: paused, holders: pausedFor };
  return { op: 'show', nodeId, backingId, mapId, inherited, leaving, ...pause, partitions, facts };
}

/** Partitions in the form of the server's commands. */
export function partitionRefs(partitions: readonly VbdPartition[]): PartitionRef[] {
  return partitions.map(({ vdev: name, nodeId, ledgerIndex, offset, size, readOnly, leaving }) => {
    return { name, nodeId, ledgerIndex, offset, size, readOnly, leaving };
  });
}
