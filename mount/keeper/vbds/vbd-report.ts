/**
 * What `ls`, `show` and `stats` report about the vbds of a bus.
 */
import { join } from 'node:path';
import { isSimple } from '../../../drivers/graph.js';
import { typeName } from '../../../drivers/partitions/index.js';
import type { BusState, BusVersion, PartitionInfo, VbdInfo, VbdStats } from '../../control/interface.js';
import { withOpens } from '../../control/partition-opens.js';
import { readStats } from '../../ledger/counters.js';
import type { VbdFacts } from '../../server/commands.js';
import { VERSION } from '../../version.js';
import type { BusParts } from './bus-parts.js';
import type { Vbd, VbdPartition } from './vbd.js';

/** What does not change while a vbd is attached. */
export function vbdFacts({ place, transport, memories }: BusParts, vbd: Vbd): VbdFacts {
  const { source } = vbd;
  return {
    bus: place.name,
    vdev: vbd.vdev,
    slot: vbd.slot,
    path: join(place.path, vbd.vdev),
    driver: source.driver,
    image: source.imagePath,
    mode: vbd.mode,
    size: vbd.size,
    transport,
    passthrough: vbd.backingId !== null,
    share: source.memory === null || source.memory.isOwn ? null : memories.shareOf(source.memory),
    filters: vbd.filters.map(({ name, value }) => (value === '' ? name : `${name}=${value}`)),
    options: { ...source.options },
    ...(!isSimple(source.graph) && { disk: source.graph }),
    ...(source.backing !== 'same-directory' && { backing: source.backing }),
    ...(source.raw && { raw: true }),
    partitions: vbd.partitions?.map((partition) => partitionInfo(place.path, vbd, partition)) ?? null,
    sectorSize: vbd.sectorBytes,
  };
}

function partitionInfo(directory: string, disk: Vbd, partition: VbdPartition): PartitionInfo {
  const { vdev, slot, offset, size, type, name, readOnly } = partition;
  const path = join(directory, vdev);
  const mode = readOnly ? 'r' : disk.mode;
  return { vdev, path, slot, offset, size, type, typeName: typeName(type), name, mode, opens: 0 };
}

export async function vbdInfo(bus: BusParts, vbd: Vbd): Promise<VbdInfo> {
  return { ...vbdInfoUnseen(bus, vbd), ...(await bus.images.report(bus, vbd)) };
}

/** The same without looking at the image, whose file system may hang. */
export function vbdInfoUnseen(bus: BusParts, vbd: Vbd): VbdInfo {
  const state = busState(bus);
  const facts = vbdFacts(bus, vbd);
  const opens = bus.ledger.countHandles();
  return {
    ...facts,
    partitions: withOpens(facts.partitions, vbd.partitions ?? [], opens),
    state: state === 'running' ? vbdState(vbd) : state,
    opens: opens.get(vbd.nodeId) ?? 0,
    keeperPid: process.pid,
    serverPid: bus.server.pid,
    restarts: bus.server.restarts,
    changedOutside: false,
    broken: vbd.broken ?? vbd.source.kept?.broken ?? null,
    reconnecting: vbd.source.kept?.reconnecting ?? null,
    imageState: null,
    writtenOutside: false,
    movedTo: null,
    deleted: false,
    version: busVersion(bus),
    detachesWhenUnused: vbd.detachesWhenUnused ?? false,
    pausedByUser: vbd.pausedByUser ?? false,
  };
}

function vbdState({ paused, source }: Vbd): BusState {
  if (paused) return 'paused';
  return source.kept?.reconnecting == null ? 'running' : 'reconnecting';
}

/** The counters of requests, of each vbd and each partition, since its attach. */
export function vbdStats(bus: BusParts): VbdStats[] {
  return bus.vbds.sorted().flatMap((vbd) =>
    [vbd, ...(vbd.partitions ?? [])].map((file) => {
      const passthrough = file === vbd && vbd.backingId !== null;
      return { bus: bus.place.name, vdev: file.vdev, passthrough, ...readStats(bus.statsFd, file.ledgerIndex) };
    }),
  );
}

export function busVersion({ server }: BusParts): BusVersion {
  return { keeper: VERSION, server: server.version };
}

export function busState({ failed, server }: BusParts): BusState {
  if (failed) return 'failed';
  return server.state === 'running' ? 'running' : 'restarting';
}
