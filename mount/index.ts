/**
 * fusetap as a library: the acts of the command line, for programs.
 *
 *     import { attach, detach } from 'fusetap';
 *     const vbd = await attach('golden.img', { driver: 'ram' });
 *     // … vbd.path is the disk …
 *     await detach(vbd);
 *
 * Expected errors are FusetapError; its `code` is one of a closed list.
 */

import { defined } from '../drivers/defined.js';
import type { Disk } from '../drivers/disk.js';
import type { Change } from '../drivers/driver.js';
import { FusetapError } from '../drivers/errors.js';
import type { FilterSpec } from '../drivers/filters/filter.js';
import { isFile, type NodeSpec, simpleGraph } from '../drivers/graph.js';
import type { MapExtent } from '../drivers/map/map-extents.js';
import { DEFAULT_DRIVER } from '../drivers/names.js';
import { quoted } from '../drivers/quote.js';
import { asSnapshot, withTree } from './client/disk-wish.js';
import { absolutePath } from './client/finding/working-directory.js';
import * as client from './client/index.js';
import type {
  AttachRequest,
  BackingPolicy,
  BusInfo,
  CommitResult,
  DetachResult,
  DiskWish,
  SaveResult,
  VbdInfo,
} from './control/interface.js';
import { MODES, type Mode } from './images/mode.js';

export type { Disk } from '../drivers/disk.js';
export type {
  Change,
  CommitContext,
  ConnectionState,
  Driver as RoleDriver,
  Extent,
  Given,
  Growth,
  Host,
  ImageFile,
  Json,
  Kept,
  LocateOptions,
  MapFile,
  MapView,
  MeasureContext,
  Memory,
  Need,
  NeedsContext,
  OpenContext,
  Place,
  Places,
  PrepareContext,
  RawDisk,
  RepairContext,
  Role,
  Segment,
  Window,
  WriteOptions,
  ZeroOptions,
} from '../drivers/driver.js';
export {
  type ErrorCode,
  type ErrorDetails,
  EXIT_CODES,
  FusetapError,
  type Holder,
  type PlainError,
} from '../drivers/errors.js';
export type { FilterSpec } from '../drivers/filters/filter.js';
export type { FileSpec, NodeSpec } from '../drivers/graph.js';
export type { AnyDriver as Driver, ImageDriver, WithImage } from '../drivers/image-driver.js';
export type { MapExtent } from '../drivers/map/map-extents.js';
export type { DetachOptions } from './client/index.js';
export type {
  BackingPolicy,
  BusInfo,
  BusState,
  BusVersion,
  CommitResult,
  DetachedVbd,
  DetachResult,
  ImageState,
  PartitionInfo,
  Reconnecting,
  SaveResult,
  TransportName,
  VbdInfo,
} from './control/interface.js';
export type { Mode } from './images/mode.js';
export { VERSION } from './version.js';

/** Which bus. */
export interface BusOptions {
  /** a name, or a directory if it contains `/`; default: $FUSETAP_BUS, else `0` */
  readonly bus?: string;
  /** default: $FUSETAP_RUNTIME_DIR, else see docs/cli.md */
  readonly runtimeDir?: string;
}

/** How to open an image, in a bus or in this process. */
export interface DiskOptions {
  /** a tree of drivers, in place of an image, `driver` and `options`; its files may be relative paths */
  readonly disk?: NodeSpec;
  /** writes go to memory and are lost at the detach, or when the disk is closed; the image is only read; default: false */
  readonly snapshot?: boolean;
  /** a built-in driver such as `ram`, the path of a file (`./mine.js`), or the name of a package; default: `aio` */
  readonly driver?: string;
  /** default `w` */
  readonly mode?: Mode;
  /** options of the driver */
  readonly options?: Readonly<Record<string, string>>;
  /** use the bytes of the image as they are, even if it looks like another format, such as qcow2; default: false */
  readonly raw?: boolean;
  /** the start of the disk in the image, in bytes; default: 0 */
  readonly offset?: number;
  /** the size of the disk in bytes; default: up to the end of the image */
  readonly sizelimit?: number;
  /** which files an image may name, as the backing file of a qcow2; default `same-directory`: its own and below */
  readonly backing?: BackingPolicy;
  /** applied after offset and sizelimit, in this order: `{ name: 'delay', value: '20' }` */
  readonly filters?: readonly FilterSpec[];
}

export interface AttachOptions extends DiskOptions, BusOptions {
  /** `xvdb` or a slot number; default: the first free xvd* */
  readonly vdev?: string;
  /** whether the kernel may do the I/O itself; default `auto` */
  readonly passthrough?: 'auto' | 'on' | 'off';
  /** the name under which its memory is shared, ram only; default: the identity of the image */
  readonly share?: string;
  /** whether to show its partitions as files; default: false */
  readonly partitions?: boolean;
  /** the sectors in which the partition table counts; default: a GPT tells, an MBR counts in 512 bytes */
  readonly sectorSize?: 512 | 1024 | 2048 | 4096;
  /** cancels the attach and undoes it */
  readonly signal?: AbortSignal;
}

/**
 * A vbd, or a word that names it: a vdev or a slot number on the chosen bus; or, on any bus unless one is named, the path
 * of its file, of its image, of a directory where it is mounted, or of a loop device on it.
 */
export type VbdWord = VbdInfo | string;

/**
 * Attaches an image; starts the bus if needed. Resolves when a byte of the vbd's file, `path`, was read.
 * @param image a path; null for a driver that takes none, and if `disk` tells the images
 * @throws FusetapError
 */
export async function attach(image: string | null, options: AttachOptions = {}): Promise<VbdInfo> {
  const { vdev, signal, passthrough, share, partitions, sectorSize, raw, backing } = options;
  checkMode(options);
  const request: AttachRequest = {
    ...diskOf(image, options),
    vdev: vdev ?? null,
    mode: options.mode ?? 'w',
    ...defined({ passthrough, share, partitions, sectorSize, raw, backing }),
    filters: filtersOf(options),
  };
  return client.attach(await placeOf(options), request, defined({ signal }));
}

/**
 * Detaches a vbd. Resolves when the data is durable and the file is gone. If this was the last vbd of the bus, the bus
 * may have ended too.
 * @param options force: detach it even if it is in use; waitSeconds: how long to wait first until it is not in use
 * @throws FusetapError BUSY with the holders if it is in use; NOT_FOUND
 */
export async function detach(vbd: VbdWord, options: BusOptions & client.DetachOptions = {}): Promise<DetachResult> {
  const { place, vdev } = await locate(vbd, options);
  return client.detach(place, vdev, options);
}

/**
 * Pauses the I/O of a vbd: it waits, without an error, so that the image can be copied or swapped.
 * @throws FusetapError BUSY if it uses passthrough and is open; NOT_FOUND
 */
export async function pause(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.pause(place, vdev);
}

/** Resumes the I/O of a paused vbd. @throws FusetapError NOT_FOUND */
export async function resume(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.resume(place, vdev);
}

/**
 * Writes a consistent copy of a vbd to a file: sparse and durable. The file appears in one step.
 * @param options force: replace the file if it exists
 * @throws FusetapError BUSY if the file exists or is in use, or if writes to the vbd cannot be paused; NO_SPACE;
 *   NOT_FOUND
 */
export async function save(
  vbd: VbdWord,
  path: string,
  options: BusOptions & { readonly force?: boolean } = {},
): Promise<SaveResult> {
  const { place, vdev } = await locate(vbd, options);
  return client.save(place, vdev, { path: absolutePath(path), force: options.force ?? false });
}

/**
 * Discards the changes of a ram vbd: copies its image again.
 * @throws FusetapError BUSY if it is in use or shared; NOT_FOUND
 */
export async function reset(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.reset(place, vdev);
}

/**
 * Where a vbd differs from its base: a snapshot from its image, an image from its backing file. Ranges are in order. A range
 * that was written with the bytes that it had counts too.
 * @throws FusetapError UNSUPPORTED if the vbd has no base; NOT_FOUND
 */
export async function changes(vbd: VbdWord, options: BusOptions = {}): Promise<Change[]> {
  const { place, vdev } = await locate(vbd, options);
  const { changes: ask } = await import('./client/ranges/changes.js');
  const found: Change[] = [];
  for await (const change of ask(place, vdev)) found.push(change);
  return found;
}

/**
 * What the ranges of a vbd's disk are, and where in which file their bytes are: in order, without gaps.
 * @throws FusetapError NOT_FOUND
 */
export async function map(vbd: VbdWord, options: BusOptions = {}): Promise<MapExtent[]> {
  const { place, vdev } = await locate(vbd, options);
  const { map: ask } = await import('./client/ranges/map.js');
  const found: MapExtent[] = [];
  for await (const extent of ask(place, vdev)) found.push(extent);
  return found;
}

/**
 * Moves what a vbd has over its base, the backing file of a qcow2 image, into the base. Programs that have the vbd open go
 * on. If it fails or is cancelled, the vbd is as before; what was moved stays in the base.
 * @throws FusetapError UNSUPPORTED if it has no base that can be written; USAGE if it is not attached with mode w, or is
 *   paused; BUSY if somebody else uses the base; NO_SPACE; NOT_FOUND
 */
export async function commit(
  vbd: VbdWord,
  options: BusOptions & { readonly signal?: AbortSignal } = {},
): Promise<CommitResult> {
  const { place, vdev } = await locate(vbd, options);
  const { commit: ask } = await import('./client/ranges/changes.js');
  return ask(place, vdev, defined({ signal: options.signal }));
}

/** How `swap` opens the new image. */
export interface SwapOptions extends BusOptions {
  /** a tree of drivers, in place of an image, `driver` and `options`; its files may be relative paths */
  readonly disk?: NodeSpec;
  /** see AttachOptions */
  readonly backing?: BackingPolicy;
  /** default `aio` */
  readonly driver?: string;
  /** options of the driver */
  readonly options?: Readonly<Record<string, string>>;
  /** see DiskOptions */
  readonly raw?: boolean;
}

/**
 * Gives a paused vbd another image of the same size. Programs that have it open go on with the new image. If it fails,
 * nothing has changed.
 * @param image a path; null if `disk` tells the images
 * @throws FusetapError USAGE if it is not paused or the size differs; also the errors of an `attach` of the image
 */
export async function swap(vbd: VbdWord, image: string | null, options: SwapOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  const { swap: ask } = await import('./client/swap.js');
  const { raw, backing } = options;
  return ask(place, vdev, { ...diskOf(image, options), ...defined({ raw, backing }) });
}

/**
 * Gives a vbd the size that its image has now, if the image has grown. Programs that have it open go on.
 * @throws FusetapError USAGE if it would become smaller; UNSUPPORTED for a ram vbd; NOT_FOUND
 */
export async function resize(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  const { resize: ask } = await import('./client/follow.js');
  return ask(place, vdev);
}

/**
 * Reads the partition table of a vbd again: `partitions` of the result is what it has now.
 * @throws FusetapError BUSY with the holders if a partition that has changed or is gone is in use; NOT_FOUND
 */
export async function reread(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  const { reread: ask } = await import('./client/follow.js');
  return ask(place, vdev);
}

/** Starts a bus, or makes a running bus stay when it has no vbds. */
export async function start(options: BusOptions = {}): Promise<BusInfo> {
  return client.start(await placeOf(options));
}

/**
 * Detaches all vbds and ends the bus.
 * @throws FusetapError BUSY with the holders if in use without `force`; NOT_FOUND
 */
export async function stop(options: BusOptions & client.DetachOptions = {}): Promise<DetachResult> {
  return client.stop(await placeOf(options), options);
}

/** The bus and its vbds. @throws FusetapError NOT_FOUND if it does not run */
export async function show(options: BusOptions = {}): Promise<BusInfo> {
  return client.showBus(await placeOf(options));
}

/**
 * Lists the vbds of all buses of the runtime directory, or of the named bus. Without a name, it omits buses that do not
 * answer.
 * @throws FusetapError NOT_FOUND if the named bus does not run
 */
export async function list(options: BusOptions = {}): Promise<VbdInfo[]> {
  if (options.bus !== undefined) return (await show(options)).vbds;
  const { buses } = await client.listBuses(runtimeDirOf(options));
  return buses.flatMap(({ vbds }) => vbds);
}

/**
 * Opens an image as a disk in this process, without a bus.
 * @param image a path; null for a driver that takes none, and if `disk` tells the images
 * @throws FusetapError as an attach of the same image would
 */
export async function openDisk(image: string | null, options: DiskOptions = {}): Promise<Disk> {
  checkMode(options);
  const { openDiskHere } = await import('./open-disk.js');
  const { mode = 'w', raw, backing } = options;
  return openDiskHere({ ...diskOf(image, options), mode, raw, backing, filters: filtersOf(options) });
}

/**
 * One bus, for programs that use it more than once. Only `attach` and `start` start it.
 *
 *     const bus = new Bus({ bus: 'guests' });
 *     const vbd = await bus.attach('disk.img');
 *     await bus.stop();
 */
export class Bus {
  readonly #options: BusOptions;

  constructor(options: BusOptions = {}) {
    this.#options = { ...options };
  }

  /** @see attach */
  attach(image: string | null, options: Omit<AttachOptions, keyof BusOptions> = {}): Promise<VbdInfo> {
    return attach(image, { ...options, ...this.#options });
  }

  /** @see detach */
  detach(vbd: VbdWord, options: client.DetachOptions = {}): Promise<DetachResult> {
    return detach(vbd, { ...options, ...this.#options });
  }

  /** @see pause */
  pause(vbd: VbdWord): Promise<VbdInfo> {
    return pause(vbd, this.#options);
  }

  /** @see resume */
  resume(vbd: VbdWord): Promise<VbdInfo> {
    return resume(vbd, this.#options);
  }

  /** @see save */
  save(vbd: VbdWord, path: string, options: { readonly force?: boolean } = {}): Promise<SaveResult> {
    return save(vbd, path, { ...options, ...this.#options });
  }

  /** @see map */
  map(vbd: VbdWord): Promise<MapExtent[]> {
    return map(vbd, this.#options);
  }

  /** @see changes */
  changes(vbd: VbdWord): Promise<Change[]> {
    return changes(vbd, this.#options);
  }

  /** @see commit */
  commit(vbd: VbdWord, options: { readonly signal?: AbortSignal } = {}): Promise<CommitResult> {
    return commit(vbd, { ...options, ...this.#options });
  }

  /** @see reset */
  reset(vbd: VbdWord): Promise<VbdInfo> {
    return reset(vbd, this.#options);
  }

  /** @see swap */
  swap(vbd: VbdWord, image: string | null, options: Omit<SwapOptions, keyof BusOptions> = {}): Promise<VbdInfo> {
    return swap(vbd, image, { ...options, ...this.#options });
  }

  /** @see resize */
  resize(vbd: VbdWord): Promise<VbdInfo> {
    return resize(vbd, this.#options);
  }

  /** @see reread */
  reread(vbd: VbdWord): Promise<VbdInfo> {
    return reread(vbd, this.#options);
  }

  /** Starts it, or makes it stay when it has no vbds. @see start */
  start(): Promise<BusInfo> {
    return start(this.#options);
  }

  /** @see show */
  show(): Promise<BusInfo> {
    return show(this.#options);
  }

  /** @see stop */
  stop(options: client.DetachOptions = {}): Promise<DetachResult> {
    return stop({ ...options, ...this.#options });
  }
}

/** For programs that the compiler does not check. @throws FusetapError USAGE */
function checkMode({ mode = 'w' }: DiskOptions): void {
  if (MODES.includes(mode)) return;
  throw new FusetapError('USAGE', `mode ${quoted(String(mode))} is none of ${MODES.join(', ')}`, {
    hint: 'r reads, w writes, w! writes without the sharing check',
  });
}

/** The disk of a request. @throws FusetapError USAGE if it is told twice */
function diskOf(image: string | null, options: DiskChoice): Pick<DiskWish, 'driver' | 'image' | 'options' | 'disk'> {
  const { driver, options: own, disk, snapshot = false } = options;
  const told = Object.entries({ image, driver, options: own }).find(([, value]) => value != null);
  if (disk !== undefined && told !== undefined) {
    throw new FusetapError('USAGE', `${told[0]} and disk contradict each other`, { hint: 'give one of them' });
  }
  const path = image === null ? null : absolutePath(image);
  const tree = disk === undefined ? simpleGraph(driver ?? DEFAULT_DRIVER, path, own) : withAbsoluteFiles(disk);
  const wish = withTree({ driver: '', image: null, options: {} }, tree);
  return snapshot ? asSnapshot(wish) : wish;
}

type DiskChoice = Pick<DiskOptions, 'driver' | 'options' | 'disk' | 'snapshot'>;

/** For programs that the compiler does not check, missing options and roles are none. */
function withAbsoluteFiles({ driver, options = {}, on = {} }: NodeSpec): NodeSpec {
  const below = Object.entries(on).map(([role, each]) => {
    return [role, isFile(each) ? { file: absolutePath(each.file) } : withAbsoluteFiles(each)];
  });
  return { driver, options, on: Object.fromEntries(below) };
}

function filtersOf({ offset, sizelimit, filters = [] }: DiskOptions): FilterSpec[] {
  const narrowing = Object.entries({ offset, sizelimit }).flatMap(([name, bytes]) =>
    bytes === undefined ? [] : [{ name, value: String(bytes) }],
  );
  return [...narrowing, ...filters];
}

function runtimeDirOf({ runtimeDir }: BusOptions): string {
  return runtimeDir === undefined
    ? client.runtimeDir(process.env, process.geteuid?.() ?? 0)
    : client.realPlace(runtimeDir);
}

function placeOf(options: BusOptions): Promise<client.BusPlace> {
  return client.resolveBus(options.bus ?? (process.env.FUSETAP_BUS || '0'), runtimeDirOf(options));
}

async function locate(vbd: VbdWord, options: BusOptions): Promise<{ place: client.BusPlace; vdev: string }> {
  if (typeof vbd !== 'string') return { place: await placeOf({ bus: vbd.bus, ...options }), vdev: vbd.vdev };
  const { locateVbd } = await import('./client/finding/locate-vbd.js');
  const located = await locateVbd(vbd, { place: await placeOf(options), anyBus: options.bus === undefined });
  return { place: located.place, vdev: located.vbd.vdev };
}
