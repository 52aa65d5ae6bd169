/**
 * What `ls`, `show` and `stats` report about the vbds of a bus.
 */
import { join } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import { isSimple } from '../../../drivers/graph.js';
import { typeName } from '../../../drivers/partitions/index.js';
import type { BusState, BusVersion, FileNames, PartitionInfo, VbdInfo, VbdStats } from '../../control/interface.js';
import { namesOfBus } from '../../control/names-of-bus.js';
import { withOpens } from '../../control/partition-opens.js';
import type { CountedBus, CountedFile } from '../../counting/bus-counting.js';
import { readStats } from '../../ledger/counters.js';
import type { CommandResult, VbdFacts } from '../../server/commands.js';
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
  const facts = vbdFacts(bus, vbd);
  const opens = bus.ledger.countHandles();
  return {
    ...facts,
    partitions: withOpens(facts.partitions, vbd.partitions ?? [], opens),
    state: vbdState(bus, vbd),
    opens: opens.get(vbd.nodeId) ?? 0,
    keeperPid: process.pid,
    serverPid: bus.server.pid,
    restarts: bus.server.restarts,
    changedOutside: false,
    broken: whyBroken(vbd),
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

/** The counters of requests, of each vbd and each partition, since its attach. */
export function vbdStats(bus: BusParts): VbdStats[] {
  return bus.vbds.sorted().flatMap((vbd) =>
    [vbd, ...(vbd.partitions ?? [])].map((file) => {
      const passthrough = file === vbd && vbd.backingId !== null;
      return { bus: bus.place.name, vdev: file.vdev, passthrough, ...readStats(bus.statsFd, file.ledgerIndex) };
    }),
  );
}

/** What the files of a bus hold, as its server has read it from their disks. */
export async function fileNames({ place, server }: BusParts): Promise<FileNames[]> {
  // undefined: an older server ignores what it does not know
  const answer: CommandResult<'names'> | undefined = await server.request<'names'>({ op: 'names' });
  if (answer?.files !== undefined) return namesOfBus(place, answer.files);
  const message = `the server of bus ${place.name} is of an older version: it does not tell the names of its disks`;
  throw new FusetapError('UNSUPPORTED', message, { hint: `fusetap upgrade --bus ${place.name} replaces it` });
}

/** What the counters of the bus are about: the bus, its vbds and their partitions. */
export function countedBus(bus: BusParts): CountedBus {
  const { place, mountDev, server, vbds } = bus;
  return {
    name: place.name,
    path: place.path,
    mountDev,
    state: busState(bus),
    restarts: server.restarts,
    keeperPid: process.pid,
    serverPid: server.pid,
    files: vbds.sorted().flatMap((vbd) => countedFiles(bus, vbd)),
  };
}

function countedFiles(bus: BusParts, vbd: Vbd): CountedFile[] {
  const { vdev, nodeId, ledgerIndex, mode, size } = vbd;
  const { driver, imagePath: image } = vbd.source;
  const known = {
    driver,
    image,
    broken: whyBroken(vbd),
    state: vbdState(bus, vbd),
    imageState: bus.images.lastKnown(bus, vbd),
  };
  const whole = { vdev, nodeId, ledgerIndex, disk: null, mode, size, passthrough: vbd.backingId !== null, ...known };
  const partitions = (vbd.partitions ?? []).map((partition): CountedFile => {
    const own = { vdev: partition.vdev, nodeId: partition.nodeId, ledgerIndex: partition.ledgerIndex };
    const partitionMode = partition.readOnly ? 'r' : mode;
    return { ...own, disk: vdev, mode: partitionMode, size: partition.size, passthrough: false, ...known };
  });
  return [whole, ...partitions];
}

export function busVersion({ server }: BusParts): BusVersion {
  return { keeper: VERSION, server: server.version };
}

/** Why its disk fails all requests: it could not be opened, or the other end is another one now. */
const whyBroken = ({ broken, source }: Vbd): string | null => broken ?? source.kept?.broken ?? null;

function vbdState(bus: BusParts, vbd: Vbd): BusState {
  const state = busState(bus);
  if (state !== 'running') return state;
  if (vbd.paused) return 'paused';
  return vbd.source.kept?.reconnecting == null ? 'running' : 'reconnecting';
}

export function busState({ failed, server }: BusParts): BusState {
  if (failed) return 'failed';
  return server.state === 'running' ? 'running' : 'restarting';
}
