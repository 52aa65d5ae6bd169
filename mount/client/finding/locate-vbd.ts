/**
 * Finds the vbd that a word means, and its bus.
 *
 *      xvda, 51712                      the vbd at that place of the chosen bus, and never of another bus
 *      bus/0/xvda, by-slot/51712        its file
 *      disk.img, any path to it         its image
 *      /mnt, /dev/loop0, /dev/loop0p1   where it is mounted, and the loop devices on it
 *      LABEL=root, UUID=…, PARTLABEL=…  the name of its file system or partition: see names.ts
 *
 * A path is looked for on the chosen bus, then on all others, unless the user has named the bus. No call is made on a
 * mount that may be dead or hang: see careful-path.ts.
 */
import { dirname, join, resolve } from 'node:path';
import { FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import { isBelow } from '../../../system/proc.js';
import type { BusInfo, FileNames, PartitionInfo, VbdInfo } from '../../control/interface.js';
import { type BusPlace, resolveBus } from '../../runtime/bus-place.js';
import { readBusRecord } from '../../runtime/bus-record.js';
import { refusePartition } from '../../slots/refuse-partition.js';
import { findSlot } from '../../slots/slots.js';
import { BY_SLOT } from '../../transport/by-slot.js';
import { showBus } from '../ask.js';
import { type BusListing, type BusTrouble, listBuses } from '../list-buses.js';
import { aboveFile, aboveVbd, loopOfNode, readTables } from './above.js';
import { carefulPath, findFile, type KernelTables } from './careful-path.js';
import {
  askNames,
  hasName,
  noneHas,
  parseTag,
  perhapsSeveralHave,
  sayUnread,
  severalHave,
  type Tag,
  tagOfPath,
} from './names.js';

/** Where to look for vbds. */
export interface Scope {
  /** the chosen bus */
  readonly place: BusPlace;
  /** a path may name a vbd of another bus: the user has not named the bus */
  readonly anyBus: boolean;
}

export interface LocatedVbd {
  readonly place: BusPlace;
  readonly vbd: VbdInfo;
  /** the partition that the word names; null if it names the vbd */
  readonly partition: PartitionInfo | null;
}

/** What a path leads to. */
interface Target {
  /** absolute, as given */
  readonly path: string;
  /** without symbolic links */
  readonly real: string;
  /** of its file; null if there is none */
  readonly identity: string | null;
}

/** Whether the word is a path; a bare vdev or slot number is not, even if there is a file of that name. */
export function isPath(word: string): boolean {
  return word.includes('/') || findSlot(word) === null;
}

/**
 * Finds vbds by words. Reads the lists of vbds only once, at the first word: a bus may end with its last vbd.
 */
export class VbdFinder {
  readonly #scope: Scope;
  readonly #own = once(() => showBus(this.#scope.place));
  readonly #all = once(() => listBuses(this.#scope.place.runtimeDir));
  readonly #tables = once(readTables);

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  /** @throws FusetapError NOT_FOUND; USAGE for an image that several vbds have, and for a partition */
  async find(word: string): Promise<LocatedVbd> {
    const located = await this.findAny(word);
    const { partition, vbd } = located;
    if (partition !== null) throw refusePartition(partition.vdev, vbd.vdev, `bus ${vbd.bus}`);
    return located;
  }

  /** The same, and a partition names its vbd. */
  async findAny(word: string): Promise<LocatedVbd> {
    const tag = parseTag(word);
    if (tag !== null) return await this.#byTag(tag);
    return (isPath(word) ? await this.#byPath(word) : null) ?? (await this.#byPlace(word));
  }

  /** A vdev or a slot number, also in Xen's form `/dev/xvda`: only on the chosen bus. */
  async #byPlace(word: string): Promise<LocatedVbd> {
    const { place } = this.#scope;
    const slot = findSlot(word);
    try {
      const found = inSlot((await this.#own()).vbds, slot);
      if (found !== null) return { place, ...found };
    } catch (error) {
      throw isNotFound(error) ? await this.#withHint(error, slot) : error;
    }
    throw await this.#withHint(notFound(word, `bus ${place.name}`), slot);
  }

  /** Names the only other bus that has such a vdev. */
  async #withHint(error: FusetapError, slot: number | null): Promise<FusetapError> {
    const { buses } = await this.#all();
    const others = buses.filter(({ bus, vbds }) => bus !== this.#scope.place.name && inSlot(vbds, slot) !== null);
    const [only, second] = others;
    const name = only && inSlot(only.vbds, slot)?.vbd.vdev;
    if (only === undefined || second !== undefined) return error;
    return new FusetapError(error.code, error.message, {
      ...error,
      hint: `${name} is on bus ${only.bus}: add --bus ${only.bus}`,
    });
  }

  /** By a name that a disk or a partition has. */
  async #byTag(tag: Tag): Promise<LocatedVbd> {
    const { buses, troubles } = await this.#listing();
    const asked = await Promise.all(buses.map((bus) => this.#namesOf(bus)));
    const found = asked.flatMap(({ files }) => files.filter((file) => hasName(file, tag)));
    const [only, second] = found;
    if (second !== undefined) throw severalHave(tag, found);
    const located = only && (await this.#atPath(buses, only.path));
    const error = troubles[0]?.error ?? asked.find((each) => each.error !== null)?.error;
    const gap = error?.message ?? sayUnread(asked.flatMap(({ files }) => files));
    if (located == null) throw noneHas(tag, this.#scope.anyBus ? 'any bus' : `bus ${this.#scope.place.name}`, gap);
    // another disk may have the name too: a command must not act on the wrong one
    if (gap !== null) throw perhapsSeveralHave(tag, located.partition ?? located.vbd, gap);
    return located;
  }

  /** By a link in a directory of names. It leads to one file even if several have the name. */
  async #byNameLink(path: string, buses: readonly BusInfo[]): Promise<LocatedVbd | null> {
    const tag = tagOfPath(path);
    const bus = buses.find((each) => each.path === tag?.busPath);
    if (tag === null || bus === undefined) return null;
    const { files } = await this.#namesOf(bus);
    const [first] = files.filter((file) => hasName(file, tag)).sort((a, b) => a.slot - b.slot);
    return first === undefined ? null : await this.#atPath([bus], first.path);
  }

  async #namesOf({ bus }: BusInfo): Promise<{ files: FileNames[]; error: FusetapError | null }> {
    try {
      return { files: await askNames(await this.#placeOf(bus)), error: null };
    } catch (error) {
      // for example a bus of an older version: others may have the name
      return { files: [], error: toFusetapError(error, `bus ${bus} does not tell the names of its disks`) };
    }
  }

  async #atPath(buses: readonly BusInfo[], path: string): Promise<LocatedVbd | null> {
    const vbds = buses.flatMap((bus) => bus.vbds);
    const found = search(vbds, (file) => file.path === path);
    return found === null ? null : { place: await this.#placeOf(found.vbd.bus), ...found };
  }

  async #placeOf(bus: string): Promise<BusPlace> {
    const { place } = this.#scope;
    return bus === place.name ? place : await resolveBus(bus, place.runtimeDir);
  }

  async #byPath(word: string): Promise<LocatedVbd | null> {
    const { place, anyBus } = this.#scope;
    const listing = await this.#listing();
    const vbds = listing.buses.flatMap((bus) => bus.vbds);
    const tables = await this.#tables();
    const target = await readTarget(word, tables);
    const located = async (vbd: VbdInfo, partition: PartitionInfo | null = null): Promise<LocatedVbd> => {
      return { place: await this.#placeOf(vbd.bus), vbd, partition };
    };
    const file = byFile(target, vbds);
    if (file !== null) return located(file.vbd, file.partition);
    const named = await this.#byNameLink(target.real, listing.buses);
    if (named !== null) return named;
    const images = await byImage(target, vbds, (vbd) => this.#identityOf(vbd, tables));
    const own = images.filter((vbd) => vbd.bus === place.name);
    const [found, second] = own.length > 0 ? own : images;
    if (second !== undefined) throw severalVbds(word, own.length > 0 ? own : images);
    const above = found ?? byAbove(target, vbds, tables);
    if (above !== null) return located(above);
    // `/dev/xvda` may be an image, and is else Xen's name of a vdev
    if (findSlot(word) !== null) return null;
    const trouble = listing.troubles.find((each) => hadIt(target, each, { tables, runtimeDir: place.runtimeDir }));
    throw trouble?.error ?? unlisted(word, listing, anyBus ? 'any bus' : `bus ${place.name}`);
  }

  /** The buses to look at; one that is dead or does not answer is a trouble. */
  async #listing(): Promise<BusListing> {
    const { anyBus } = this.#scope;
    return anyBus ? await this.#all() : { buses: [await this.#own()], troubles: [] };
  }

  /** The identity of a vbd's image: of the file that the bus has open, even if it was moved since. */
  async #identityOf({ bus, vdev, image }: VbdInfo, tables: KernelTables): Promise<string | null> {
    if (image === null) return null;
    const { stateDir } = await this.#placeOf(bus);
    const recorded = readBusRecord(stateDir)?.vbds.find((vbd) => vbd.vdev === vdev)?.identity;
    // a ram image is closed after its copy
    return recorded ?? (await findFile(image, tables))?.identity ?? null;
  }
}

/** Finds one vbd. @throws FusetapError NOT_FOUND; USAGE for an image that several vbds have, and for a partition */
export function locateVbd(word: string, scope: Scope): Promise<LocatedVbd> {
  return new VbdFinder(scope).find(word);
}

/** The vbds that a word names: all with that image, or on that bus, or with an image in that directory. */
export async function vbdsAt(word: string, buses: readonly BusInfo[], tables: KernelTables): Promise<VbdInfo[] | null> {
  const vbds = buses.flatMap((bus) => bus.vbds);
  const slot = findSlot(word);
  if (!isPath(word)) return vbds.filter((vbd) => inSlot([vbd], slot) !== null);
  const target = await readTarget(word, tables);
  const file = byFile(target, vbds);
  if (file !== null) return [file.vbd];
  const bus = buses.find(({ path }) => path === target.real);
  if (bus !== undefined) return bus.vbds;
  const images = await byImage(target, vbds, async ({ image }) =>
    image === null ? null : ((await findFile(image, tables))?.identity ?? null),
  );
  if (images.length > 0) return images;
  const above = byAbove(target, vbds, tables);
  if (above !== null) return [above];
  const inside = vbds.filter(({ image }) => image !== null && carefulPath(image, tables).startsWith(`${target.real}/`));
  return inside.length > 0 || target.identity !== null ? inside : null;
}

async function readTarget(word: string, tables: KernelTables): Promise<Target> {
  const path = resolve(word);
  const file = await findFile(path, tables);
  return { path, real: carefulPath(path, tables), identity: file?.identity ?? null };
}

interface Found {
  readonly vbd: VbdInfo;
  readonly partition: PartitionInfo | null;
}

function inSlot(vbds: readonly VbdInfo[], slot: number | null): Found | null {
  return search(vbds, (file) => file.slot === slot);
}

/** By the path of a file of a bus, or by its link in by-slot, which is for guests that only know numbers. */
function byFile({ real }: Target, vbds: readonly VbdInfo[]): Found | null {
  return search(vbds, ({ path, slot }) => real === path || real === join(dirname(path), BY_SLOT, String(slot)));
}

function search(
  vbds: readonly VbdInfo[],
  matches: (file: { readonly path: string; readonly slot: number }) => boolean,
): Found | null {
  const vbd = vbds.find(matches);
  if (vbd !== undefined) return { vbd, partition: null };
  for (const each of vbds) {
    const partition = each.partitions?.find(matches);
    if (partition !== undefined) return { vbd: each, partition };
  }
  return null;
}

/**
 * The vbds that have the file as their image; if none has, those whose image had that path when it was attached: it was
 * moved away or replaced since.
 */
async function byImage(
  { path, real, identity }: Target,
  vbds: readonly VbdInfo[],
  identityOf: (vbd: VbdInfo) => Promise<string | null>,
): Promise<VbdInfo[]> {
  const same = await Promise.all(
    vbds.map(async (vbd) => (identity !== null && (await identityOf(vbd)) === identity ? [vbd] : [])),
  );
  const found = same.flat();
  return found.length > 0 ? found : vbds.filter(({ image }) => image === path || image === real);
}

/** By a directory where it is mounted, or by a loop device on it. */
function byAbove({ real }: Target, vbds: readonly VbdInfo[], tables: KernelTables): VbdInfo | null {
  const loop = loopOfNode(real, tables);
  const isBelow = (vbd: VbdInfo): boolean => {
    const { loops, mounts } = aboveVbd(vbd, tables);
    return mounts.includes(real) || (loop !== null && loops.includes(loop));
  };
  return vbds.find(isBelow) ?? null;
}

function isNotFound(error: unknown): error is FusetapError {
  return error instanceof FusetapError && error.code === 'NOT_FOUND';
}

function notFound(word: string, where: string): FusetapError {
  return new FusetapError('NOT_FOUND', `no such vbd: ${quoted(word)} on ${where}`, {
    hint: 'fusetap ls lists what is attached',
  });
}

/** Whether a bus that is dead or silent had the vbd: it is in the bus's record. */
function hadIt(
  { path, real, identity }: Target,
  bus: BusTrouble,
  { tables, runtimeDir }: { tables: KernelTables; runtimeDir: string },
): boolean {
  if (bus.path === null) return false;
  if (isBelow(real, bus.path)) return true;
  const loop = loopOfNode(real, tables);
  const vbds = readBusRecord(join(runtimeDir, 'state', bus.bus))?.vbds ?? [];
  return vbds.some((vbd) => {
    const { loops, mounts } = aboveFile(join(bus.path ?? '', vbd.vdev), tables);
    const isAbove = mounts.includes(real) || (loop !== null && loops.includes(loop));
    return isAbove || vbd.image === path || vbd.image === real || (identity !== null && vbd.identity === identity);
  });
}

/** A bus that is dead or silent may have the vbd. */
function unlisted(word: string, { troubles }: BusListing, where: string): FusetapError {
  const error = notFound(word, where);
  const [trouble] = troubles;
  if (trouble === undefined) return error;
  return new FusetapError('NOT_FOUND', `${error.message}; ${trouble.error.message}`, trouble.error);
}

function severalVbds(word: string, vbds: readonly VbdInfo[]): FusetapError {
  const names = vbds.map((vbd) => `${vbd.vdev} of bus ${vbd.bus}`).join(', ');
  return new FusetapError('USAGE', `several vbds have the image ${quoted(word)}: ${names}`, {
    hint: 'give the vdev, and its bus with --bus',
  });
}

function once<Value>(make: () => Promise<Value>): () => Promise<Value> {
  let value: Promise<Value> | undefined;
  return () => {
    value ??= make();
    return value;
  };
}
