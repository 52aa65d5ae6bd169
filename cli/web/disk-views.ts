/** What the page shows of one vbd when it is asked for: the picture of its map, and its tree. */
import { FusetapError } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import { readTables, withAbove } from '../../mount/client/finding/above.js';
import { findUsers } from '../../mount/client/finding/users.js';
import type { BusPlace } from '../../mount/client/index.js';
import { resolveBus, showBus } from '../../mount/client/index.js';
import type { BusInfo, VbdInfo } from '../../mount/control/interface.js';
import { diskOfVbd } from '../offline/found-disk.js';
import { pictureOf } from '../picture/picture-of.js';
import { busTree } from '../show/bus-tree.js';
import { drawTree, linesFor } from '../show/tree.js';

const LIMIT_MS = 5_000;
/** a disk with very many extents */
const MAP_LIMIT_MS = 30_000;

interface Found {
  readonly place: BusPlace;
  readonly info: BusInfo;
  readonly vbd: VbdInfo;
}

/** Which vbd, and until when. */
export interface DiskWish {
  readonly bus: string;
  readonly vdev: string;
  /** the client has left, or the server ends */
  readonly signal: AbortSignal;
}

/** @throws FusetapError NOT_FOUND */
async function find(runtimeDir: string, { bus, vdev, signal }: DiskWish): Promise<Found> {
  // a path would be another user's directory, perhaps
  if (bus.includes('/')) throw new FusetapError('USAGE', 'the name of a bus has no "/"');
  const place = await resolveBus(bus, runtimeDir);
  const info = await showBus(place, { timeoutMs: LIMIT_MS, signal });
  const vbd = info.vbds.find((each) => each.vdev === vdev);
  if (vbd === undefined) throw new FusetapError('NOT_FOUND', `there is no ${vdev} on bus ${bus} any more`);
  return { place, info, vbd };
}

/** The tree of a vbd, as `fusetap show --tree VBD` draws it. */
export async function treeText(runtimeDir: string, wish: DiskWish): Promise<string> {
  const { place, info, vbd } = await find(runtimeDir, wish);
  const above = withAbove(vbd, await readTables());
  const users = await findUsers(place, [vbd], runtimeDir);
  const lines = drawTree(busTree(info, [above], users), linesFor({ LC_ALL: 'C.UTF-8' }));
  return `${lines.map(escapeControls).join('\n')}\n`;
}

export interface MapWish extends DiskWish {
  readonly columns: number;
}

/** The picture of a vbd, as `fusetap map --svg` draws it. @throws FusetapError FAILED if it takes too long */
export async function mapPicture(runtimeDir: string, wish: MapWish): Promise<string> {
  const { columns } = wish;
  const { place, vbd } = await find(runtimeDir, wish);
  // not AbortSignal.timeout: a signal that only AbortSignal.any knows may be collected as garbage, and never fires
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), MAP_LIMIT_MS);
  const stops = AbortSignal.any([wish.signal, late.signal]);
  try {
    const { name, sizeBytes, isSnapshot, ...disk } = await diskOfVbd({ place, vbd, partition: null }, stops);
    return await pictureOf({
      ...{ name, sizeBytes, columns, partitions: await disk.partitions() },
      extents: until(stops, disk.extents()),
      changed: isSnapshot ? until(stops, disk.changes()) : null,
      changes: isSnapshot ? 'written since the attach' : null,
    });
  } finally {
    clearTimeout(timer);
  }
}

async function* until<Item>(stops: AbortSignal, items: AsyncIterable<Item>): AsyncGenerator<Item, void> {
  try {
    for await (const item of items) {
      stops.throwIfAborted();
      yield item;
    }
  } catch (error) {
    if (!stops.aborted) throw error;
    throw new FusetapError('FAILED', `the map takes more than ${MAP_LIMIT_MS / 1000} s`);
  }
}
