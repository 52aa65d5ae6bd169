/** The tree of a bus: its processes, its vbds with their images and partitions, and who uses them. */
import type { Holder } from '../../drivers/errors.js';
import { describeDisk } from '../../mount/client/disk-wish.js';
import type { VbdAbove } from '../../mount/client/finding/above.js';
import type { Users } from '../../mount/client/finding/users.js';
import { describeHolders } from '../../mount/client/index.js';
import type { BusInfo } from '../../mount/control/interface.js';
import { humanSize } from '../output.js';
import { chainBranch } from './disk-chain.js';
import type { Branch } from './tree.js';

/** @param vbds those to draw */
export function busTree(bus: BusInfo, vbds: readonly VbdAbove[], users: Users): Branch {
  return {
    text: `bus ${bus.bus}, ${bus.state}, ${bus.path}`,
    below: [
      processBranch('keeper', bus.keeperPid, bus.version?.keeper),
      processBranch('server', bus.serverPid, bus.version?.server),
      ...vbds.map((vbd) => vbdBranch(vbd, users)),
    ].filter((branch) => branch !== null),
  };
}

function processBranch(name: string, pid: number | null, version: string | null | undefined): Branch | null {
  if (pid === null) return null;
  return { text: `${name} ${pid}${version == null ? '' : `, version ${version}`}`, below: [] };
}

function vbdBranch(vbd: VbdAbove, users: Users): Branch {
  const { vdev, size, mode, state, partitions } = vbd;
  const paused = state === 'paused' || state === 'reconnecting' ? `, ${state}` : '';
  const below = (partitions ?? []).map((partition) => ({
    text: `${partition.vdev}, ${humanSize(partition.size)}, ${partition.typeName ?? partition.type}`,
    below: userBranches(users.get(partition.path), partition.mounts),
  }));
  const ofPartitions = new Set((partitions ?? []).flatMap(({ mounts }) => mounts));
  const own = vbd.mounts.filter((directory) => !ofPartitions.has(directory));
  const chain = vbd.disk === undefined ? null : chainBranch(vbd.disk);
  return {
    text: `${vdev}, ${humanSize(size)}, mode ${mode}${paused}, ${describeDisk(vbd)}`,
    below: [...(chain === null ? [] : [chain]), ...below, ...userBranches(users.get(vbd.path), own)],
  };
}

/** Loop devices with their mount points below them, then other mount points, then programs and other buses. */
function userBranches(holders: readonly Holder[] | null | undefined, mounts: readonly string[]): Branch[] {
  if (holders == null) return [{ text: 'its users are not known: the files of the bus do not answer', below: [] }];
  const loops = [...new Set(holders.flatMap(({ loop }) => loop ?? []))].map((loop) => ({
    text: loop,
    below: holders
      .filter((holder) => holder.loop === loop && holder.mount !== undefined)
      .map(({ mount }) => ({ text: `mounted on ${mount}`, below: [] })),
  }));
  const told = new Set(holders.flatMap(({ mount }) => mount ?? []));
  const others = [...mounts.filter((directory) => !told.has(directory))].map((directory) => `mounted on ${directory}`);
  const rest = holders.filter(({ loop }) => loop === undefined).map((holder) => describeHolders([holder]));
  return [...loops, ...[...new Set([...others, ...rest])].map((text) => ({ text, below: [] }))];
}
