/**
 * fusetap as a library: what the command line does, for programs.
 *
 *     import { attach, detach } from 'fusetap';
 *     const vbd = await attach('golden.img', { driver: 'ram' });
 *     // … vbd.path is the disk …
 *     await detach(vbd);
 *
 * Expected errors are FusetapError, with a code of a closed list.
 */
import { resolve } from 'node:path';
import type { Disk } from '../drivers/disk.js';
import type { FilterSpec } from '../drivers/filters/filter.js';
import { DEFAULT_DRIVER } from '../drivers/names.js';
import * as client from './client/index.js';
import type { AttachRequest, BusInfo, DetachResult, SaveResult, VbdInfo } from './control/interface.js';
import type { Mode } from './images/mode.js';

export type { Disk } from '../drivers/disk.js';
export type {
  Driver,
  Extent,
  ImageFile,
  Json,
  MeasureContext,
  Memory,
  OpenContext,
  PrepareContext,
  RawDisk,
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
export type { DetachOptions } from './client/index.js';
export type {
  BusInfo,
  BusState,
  DetachedVbd,
  DetachResult,
  ImageState,
  PartitionInfo,
  SaveResult,
  TransportName,
  VbdInfo,
} from './control/interface.js';
export type { Mode } from './images/mode.js';
export { VERSION } from './version.js';

/** Which bus. */
export interface BusOptions {
  /** a name, or with a `/` in it a directory; default: $FUSETAP_BUS, else `0` */
  readonly bus?: string;
  /** default: $FUSETAP_RUNTIME_DIR, else as docs/cli.md says */
  readonly runtimeDir?: string;
}

/** How an image is opened, by a bus or here. */
export interface DiskOptions {
  /** one of fusetap's own, as `ram`; the path of a file (`./mine.js`); the name of a package. Default: `aio` */
  readonly driver?: string;
  /** default `w` */
  readonly mode?: Mode;
  /** options of the driver */
  readonly options?: Readonly<Record<string, string>>;
  /** where the disk begins in the image, in bytes */
  readonly offset?: number;
  /** how many bytes the disk has */
  readonly sizelimit?: number;
  /** after offset and sizelimit, the first next to them: `{ name: 'delay', value: '20' }` */
  readonly filters?: readonly FilterSpec[];
}

export interface AttachOptions extends DiskOptions, BusOptions {
  /** `xvdb` or a slot number; default: the first free xvd* */
  readonly vdev?: string;
  /** whether the kernel may do the I/O by itself; default `auto` */
  readonly passthrough?: 'auto' | 'on' | 'off';
  /** the name that its memory is shared under, ram only; default: by the identity of the image */
  readonly share?: string;
  /** whether its partitions are files beside it */
  readonly partitions?: boolean;
  /** gives up: what was begun is undone */
  readonly signal?: AbortSignal;
}

/** A vbd as it is known, or a word for it: vdev, slot number, path of the file, or path of the image. */
export type VbdWord = VbdInfo | string;

/**
 * Attaches an image; begins the bus if need be. Resolves when the file of the disk, `path`, was read.
 * @param image a path; null for a driver that takes none
 * @throws FusetapError
 */
export async function attach(image: string | null, options: AttachOptions = {}): Promise<VbdInfo> {
  const { vdev, signal, passthrough, share, partitions } = options;
  const request: AttachRequest = {
    driver: options.driver ?? DEFAULT_DRIVER,
    image: image === null ? null : resolve(image),
    vdev: vdev ?? null,
    mode: options.mode ?? 'w',
    options: { ...options.options },
    ...(passthrough !== undefined && { passthrough }),
    ...(share !== undefined && { share }),
    ...(partitions !== undefined && { partitions }),
    filters: filtersOf(options),
  };
  return client.attach(await placeOf(options), request, signal === undefined ? {} : { signal });
}

/**
 * Detaches. Resolves when the data is durable and the file is gone; and the bus too, where it ends with this vbd.
 * @param options force: cut off who holds it; waitSeconds: for how long to wait for them first
 * @throws FusetapError BUSY with the holders; NOT_FOUND
 */
export async function detach(vbd: VbdWord, options: BusOptions & client.DetachOptions = {}): Promise<DetachResult> {
  const { place, vdev } = await locate(vbd, options);
  return client.detach(place, vdev, options);
}

/**
 * Holds the I/O of a vbd: it waits, without an error, so that the image can be copied or swapped.
 * @throws FusetapError BUSY where it is passed through and open; NOT_FOUND
 */
export async function pause(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.pause(place, vdev);
}

/** Lets the I/O of a paused vbd go on. @throws FusetapError NOT_FOUND */
export async function resume(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.resume(place, vdev);
}

/**
 * Makes a file a consistent copy of a vbd: sparse, durable, put in its place in one step.
 * @param options force: it may take the place of a file
 * @throws FusetapError BUSY where the file is there or in use, or what is written cannot be held; NO_SPACE; NOT_FOUND
 */
export async function save(
  vbd: VbdWord,
  path: string,
  options: BusOptions & { readonly force?: boolean } = {},
): Promise<SaveResult> {
  const { place, vdev } = await locate(vbd, options);
  return client.save(place, vdev, { path: resolve(path), force: options.force ?? false });
}

/** Copies the image of a ram vbd afresh. @throws FusetapError BUSY where anybody holds or shares it; NOT_FOUND */
export async function reset(vbd: VbdWord, options: BusOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  return client.reset(place, vdev);
}

/** Which image a vbd gets. */
export interface SwapOptions extends BusOptions {
  /** default `aio` */
  readonly driver?: string;
  /** options of the driver */
  readonly options?: Readonly<Record<string, string>>;
}

/**
 * Gives a paused vbd another image of the same size: those who have it open go on with that one. All or nothing.
 * @throws FusetapError USAGE where it is not paused or the size is another; what `attach` of the image throws
 */
export async function swap(vbd: VbdWord, image: string, options: SwapOptions = {}): Promise<VbdInfo> {
  const { place, vdev } = await locate(vbd, options);
  const { swap: ask } = await import('./client/swap.js');
  return ask(place, vdev, {
    driver: options.driver ?? DEFAULT_DRIVER,
    image: resolve(image),
    options: { ...options.options },
  });
}

/** Begins a bus, or lets one that runs stay without vbds. */
export async function start(options: BusOptions = {}): Promise<BusInfo> {
  return client.start(await placeOf(options));
}

/** Detaches all and ends the bus. @throws FusetapError BUSY with the holders, unless `force`; NOT_FOUND */
export async function stop(options: BusOptions & client.DetachOptions = {}): Promise<DetachResult> {
  return client.stop(await placeOf(options), options);
}

/** The bus and its vbds. @throws FusetapError NOT_FOUND where it does not run */
export async function show(options: BusOptions = {}): Promise<BusInfo> {
  return client.showBus(await placeOf(options));
}

/**
 * What is attached: on all buses of the runtime directory, or on the one that is named.
 * @throws FusetapError NOT_FOUND where the bus named does not run. Of all buses, those that do not answer are left out
 */
export async function list(options: BusOptions = {}): Promise<VbdInfo[]> {
  if (options.bus !== undefined) return (await show(options)).vbds;
  const { buses } = await client.listBuses(runtimeDirOf(options));
  return buses.flatMap(({ vbds }) => vbds);
}

/**
 * Opens an image as a disk in this process, without a bus.
 * @param image a path; null for a driver that takes none
 * @throws FusetapError as an attach of the same image would
 */
export async function openDisk(image: string | null, options: DiskOptions = {}): Promise<Disk> {
  const { openDiskHere } = await import('./open-disk.js');
  const { driver = DEFAULT_DRIVER, mode = 'w' } = options;
  return openDiskHere({ driver, image, mode, options: options.options ?? {}, filters: filtersOf(options) });
}

/**
 * One bus, for a program that does more than one thing with it. Nothing is begun before it is needed: `attach` and
 * `start` begin it.
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

  /** @see reset */
  reset(vbd: VbdWord): Promise<VbdInfo> {
    return reset(vbd, this.#options);
  }

  /** @see swap */
  swap(vbd: VbdWord, image: string, options: Omit<SwapOptions, keyof BusOptions> = {}): Promise<VbdInfo> {
    return swap(vbd, image, { ...options, ...this.#options });
  }

  /** Begins it, or lets it stay without vbds. @see start */
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
  const place = await placeOf(typeof vbd === 'string' ? options : { bus: vbd.bus, ...options });
  const { vdev } = typeof vbd === 'string' ? await findIn(place, vbd) : vbd;
  return { place, vdev };
}

async function findIn(place: client.BusPlace, word: string): Promise<VbdInfo> {
  const { vbds } = await client.showBus(place);
  return client.findVbd(word, vbds, `bus ${place.name}`);
}
