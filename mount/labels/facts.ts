/** Reads what a disk says of itself: its superblock, and the names of its partitions. */

import { readSync } from 'node:fs';
import { constants } from 'node:os';
import type { Disk } from '../../drivers/disk.js';
import type { Window } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { readPartitions, type SectorBytes } from '../../drivers/partitions/index.js';
import type { ReadBytes } from '../../drivers/partitions/partition.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { readSuperblock, type Superblock } from '../../drivers/superblocks/index.js';
import type { Lanes } from '../../system/lanes.js';
import { addressOf, preadNoWait } from '../../system/libc.js';
import { encodeName, linkName } from '../transport/by-name.js';

/** A name, as text and as that of its link. */
export interface Name {
  readonly text: string;
  /** as udev writes it */
  readonly encoded: string;
  /** null if no file can have that name */
  readonly link: string | null;
}

/** The names of a partition in its table. */
export interface PartitionNames {
  readonly partlabel: Name | null;
  readonly partuuid: Name | null;
}

export interface Facts {
  readonly type: string | null;
  readonly usage: Superblock['usage'] | null;
  readonly label: Name | null;
  readonly uuid: Name | null;
  /** of a whole disk, by the offset of the partition */
  readonly partitions: ReadonlyMap<number, PartitionNames>;
}

export const NO_FACTS: Facts = { type: null, usage: null, label: null, uuid: null, partitions: new Map() };

export interface FactsContext {
  readonly lanes: Lanes;
  /** whether to read its partition table */
  readonly hasPartitions: boolean;
  /** the sectors in which its table counts; null: find out */
  readonly sectorBytes: SectorBytes | null;
  /** called with each read of the disk when it begins: not while it waits for its turn */
  began(read: Promise<unknown>): void;
  /** false: stop soon, because the disk is about to be paused or closed */
  isWanted(): boolean;
}

/** The reading was given up. */
export class NotWanted extends Error {}

/** @throws NotWanted; errors of the disk */
export async function readFacts(disk: Disk, context: FactsContext): Promise<Facts> {
  const read = readerOf(disk, context);
  const superblock = await readSuperblock(read, disk.size);
  const { type = null, usage = null, label = null, uuid = null } = superblock ?? {};
  const partitions = context.hasPartitions
    ? await readTable(read, disk.size, context.sectorBytes)
    : NO_FACTS.partitions;
  return { type, usage, label: nameOf(label), uuid: nameOf(uuid), partitions };
}

async function readTable(
  read: ReadBytes,
  size: number,
  sectorBytes: SectorBytes | null,
): Promise<ReadonlyMap<number, PartitionNames>> {
  const { partitions } = await readPartitions(read, size, sectorBytes);
  return new Map(
    partitions.map(({ offset, name, uuid }) => [offset, { partlabel: nameOf(name), partuuid: nameOf(uuid) }]),
  );
}

function nameOf(value: Buffer | string | null): Name | null {
  if (value === null) return null;
  const bytes = Buffer.from(value as string);
  const encoded = encodeName(bytes);
  return { text: bytes.toString('utf8'), encoded, link: linkName(encoded) };
}

function readerOf(disk: Disk, { lanes, began, isWanted }: FactsContext): ReadBytes {
  const window = windowOf(disk);
  return async (offset, length) => {
    if (!isWanted()) throw new NotWanted();
    // not from the pool of small buffers: system calls write to it
    const bytes = Buffer.allocUnsafeSlow(length);
    if (window !== undefined && readAtOnce(window, bytes, offset)) return bytes;
    const done = await lanes.run(async () => {
      if (!isWanted()) throw new NotWanted();
      const reading = disk.read(bytes, offset);
      began(reading);
      return await reading;
    });
    if (done === length) return bytes;
    throw new FusetapError('FAILED', `only ${done} of ${length} bytes at ${offset}`, { errno: constants.errno.EIO });
  };
}

/** Reads what is in memory, without waiting for a disk. @returns false if not all of it is */
function readAtOnce({ fd, start, size, kind }: Window, bytes: Buffer, offset: number): boolean {
  if (offset + bytes.length > size) return false;
  if (kind === 'memory') return readSync(fd, bytes, 0, bytes.length, start + offset) === bytes.length;
  return preadNoWait(fd, addressOf(bytes), bytes.length, start + offset) === bytes.length;
}
