/** The data that tap-ctl shows: tapdisks, minors, and statistics of requests. */
import { remoteUri } from '../../drivers/graph.js';
import { askStats } from '../client/stats.js';
import type { VbdInfo, VbdStats } from '../control/interface.js';
import { resolveBus } from '../runtime/bus-place.js';
import type { TapName } from './life.js';
import { listMinors, type Minor } from './minors.js';
import { listTapdisks, requireOpen, type Tapdisk, vbdOfMinor } from './tapdisks.js';

/** The bits of a state, as in tapdisk. */
const DEAD = 0x1;
const CLOSED = 0x2;
const QUIESCED = 0x8;
const PAUSED = 0x20;

/** A row of `tap-ctl list`: a key without a value is null. */
export interface TapEntry {
  readonly pid: number | null;
  readonly minor: number | null;
  readonly state: number | null;
  readonly type: string | null;
  readonly path: string | null;
}

/** All minors by number, then the tapdisks without a minor. */
export async function listTaps(runtimeDir: string): Promise<TapEntry[]> {
  const minors = listMinors(runtimeDir);
  const tapdisks = await listTapdisks(runtimeDir);
  const used = new Set(minors.map(({ owner }) => owner?.pid));
  const idle = tapdisks.filter(({ info }) => info.keeperPid !== null && !used.has(info.keeperPid));
  return [
    ...minors.map((minor) => entryOf(minor, tapdisks)),
    ...idle.map(({ info }) => ({ pid: info.keeperPid, minor: null, state: null, type: null, path: null })),
  ];
}

function entryOf({ minor, owner }: Minor, tapdisks: readonly Tapdisk[]): TapEntry {
  if (owner === null) return { pid: null, minor, state: null, type: null, path: null };
  const info = tapdisks.find(({ place }) => place.name === owner.bus)?.info;
  const isOurs = info?.keeperPid === owner.pid || info?.state === 'orphaned';
  const vbd = info !== undefined && isOurs ? vbdOfMinor(info, minor) : null;
  const state =
    info === undefined || !isOurs || info.keeperPid === null || info.state === 'failed' ? DEAD : stateOf(vbd);
  return { pid: owner.pid, minor, state, type: vbd?.driver ?? null, path: vbd?.image ?? (vbd && remoteUri(vbd)) };
}

function stateOf(vbd: VbdInfo | null): number {
  if (vbd === null) return CLOSED;
  return vbd.state === 'paused' ? CLOSED | QUIESCED | PAUSED : 0;
}

/** A vbd and the statistics of its requests. @throws FusetapError NOT_FOUND */
export async function statsOfMinor(name: TapName): Promise<{ vbd: VbdInfo; stats: VbdStats }> {
  const { vbd } = await requireOpen(name.runtimeDir, name.pid, name.minor);
  const all = await askStats(await resolveBus(vbd.bus, name.runtimeDir));
  const stats = all.find(({ vdev }) => vdev === vbd.vdev);
  if (stats === undefined) throw new TypeError(`no statistics of ${vbd.vdev}`);
  return { vbd, stats };
}
