/**
 * The only list of the drivers that come with fusetap. A new driver needs a folder and a line here; the registry,
 * specs, help, completion, the control interface and tap-ctl use this list.
 *
 * Cheap to import, also for the command line: the code of a driver is loaded only when `load` is called.
 */
import type { Driver } from './driver.js';

/** The facts about a driver that are needed before its code is loaded. */
export interface DriverFacts {
  load(): Promise<{ readonly default: Driver }>;
  /** true: `aio:` alone is wrong; false: `ram:` alone may join a ram image by its name */
  readonly needsImage: boolean;
  /** under `file` it takes the disk of another driver, so specs stack: `ram:vhd:PATH`; default: it takes a file */
  readonly takesDisk?: boolean;
  /** its disks are copies in memory, which several vbds can share; default: false */
  readonly sharesMemory?: boolean;
  /** each of its disks has memory of its own: no two vbds show the same disk, not even of one image; default: false */
  readonly ownMemory?: boolean;
  /** its disks are named by a URI, its option `uri`: it has no image; default: false */
  readonly isRemote?: boolean;
  /** its disks are never written, so they may be below a snapshot although they are remote; default: false */
  readonly onlyReads?: boolean;
  /** its code comes with a large package, so it is loaded only if it is used; default: false */
  readonly needsPackage?: boolean;
  /** its number in tapdisk, if tapdisk has this driver */
  readonly tapdiskType?: number;
  /** for help and completion */
  readonly summary: string;
}

/** In alphabetical order. */
const DRIVERS = {
  aio: { load: () => import('./aio/index.js'), needsImage: true, tapdiskType: 0, summary: 'the image itself' },
  concat: { load: () => import('./concat/index.js'), needsImage: false, summary: 'disks one after the other' },
  https: {
    load: () => import('./https/index.js'),
    needsImage: false,
    isRemote: true,
    onlyReads: true,
    needsPackage: true,
    summary: 'an image on a web server, only read',
  },
  nbd: {
    load: () => import('./nbd/index.js'),
    needsImage: false,
    isRemote: true,
    summary: 'a disk on an NBD server',
  },
  qcow2: {
    load: () => import('./qcow2/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a qcow2 image, with its backing files',
  },
  ram: {
    load: () => import('./ram/index.js'),
    needsImage: false,
    takesDisk: true,
    sharesMemory: true,
    tapdiskType: 5,
    summary: 'a copy in memory, shared',
  },
  rbd: {
    load: () => import('./rbd/index.js'),
    needsImage: false,
    isRemote: true,
    summary: 'an image in a Ceph cluster',
  },
  snapshot: {
    load: () => import('./snapshot/index.js'),
    needsImage: true,
    takesDisk: true,
    ownMemory: true,
    summary: 'writes go to memory, the base is only read',
  },
  split: {
    load: () => import('./split/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'pieces of a file: .001, .002 …',
  },
  sync: { load: () => import('./sync/index.js'), needsImage: true, tapdiskType: 1, summary: 'as aio, writes durable' },
  tar: {
    load: () => import('./tar/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a member of a tar or OVA archive',
  },
  vdi: {
    load: () => import('./vdi/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a VDI image',
  },
  vhd: {
    load: () => import('./vhd/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a VHD image, with its parents',
  },
  vhdx: {
    load: () => import('./vhdx/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a VHDX image, with its parents, only read',
  },
  vmdk: {
    load: () => import('./vmdk/index.js'),
    needsImage: true,
    takesDisk: true,
    summary: 'a VMDK image, also in an OVA',
  },
} satisfies Record<string, DriverFacts>;

export type DriverName = keyof typeof DRIVERS;

export const driverNames: readonly string[] = Object.keys(DRIVERS);

/** A line for each driver, for help and completion. */
export const driverSummaries: readonly (readonly [name: string, summary: string])[] = Object.entries(DRIVERS).map(
  ([name, { summary }]) => [name, summary],
);

/** The driver if a request names none. */
export const DEFAULT_DRIVER: DriverName = 'aio';

/** The driver of `--snapshot`. */
export const SNAPSHOT_DRIVER: DriverName = 'snapshot';

/** The facts about the driver of that name; undefined if it is not one of fusetap's own. */
export function factsOf(name: string): DriverFacts | undefined {
  // hasOwn: "constructor" is not a driver
  return Object.hasOwn(DRIVERS, name) ? DRIVERS[name as DriverName] : undefined;
}
