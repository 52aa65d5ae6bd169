/**
 * The disk of a qcow2 image, put together from its parts.
 *
 *      request ──► Reader ──► Finder ──► L2Tables                       ┐
 *              └─► Writer, Zeroer ──► Owned ──► Session, Refcounts      ├──► image, data file, backing file
 *                  each tells Qcow2Map where bytes are ──► threads      ┘
 */
import type { Disk } from '../disk.js';
import type { RawDisk } from '../driver.js';
import { placedBy } from '../map/places.js';
import { Barrier } from './barrier.js';
import { DecodedCache } from './decoded-cache.js';
import { checkWritable, type Header, readHeader, SUBCLUSTERS } from './header.js';
import { type L1Place, L2Tables } from './l2-tables.js';
import { mayReuseFree } from './limits.js';
import { Owned } from './owned.js';
import { Qcow2Map } from './qcow2-map.js';
import { Reader } from './reader.js';
import { Refcounts } from './refcounts.js';
import { Session } from './session.js';
import { Writer } from './writer.js';
import { Zeroer } from './zero.js';

export interface Qcow2Parts {
  readonly image: Disk;
  readonly header: Header;
  /** the image, or its data file */
  readonly data: Disk;
  readonly backing: Disk | null;
  /** of the disk or of the snapshot that is served */
  readonly l1: L1Place;
  readonly size: number;
  /** the refcounts were checked at this attach, as far as `mayReuseFree` says */
  readonly isRepaired: boolean;
}

export function readOnlyDisk(parts: Qcow2Parts): RawDisk {
  const { image, header, l1 } = parts;
  const tables = new L2Tables(image, header, l1);
  const { reader, map } = readerOf(parts, tables, () => false);
  return { ...readingOf(parts, reader, map), activate: () => tables.load(), close: async () => {} };
}

export function writableDisk(parts: Qcow2Parts): RawDisk {
  const { image, header, data, l1 } = parts;
  const barrier = new Barrier(() => flushAll(image, data));
  const session = new Session(image, barrier);
  const refcounts = new Refcounts({ image, header, barrier });
  const owned = new Owned({ image, data, header, l1, session, refcounts, barrier });
  const tables = new L2Tables(image, header, l1, (table) => owned.judge(table));
  const { reader, map } = readerOf(parts, tables, () => owned.mayWriteInPlace);
  const isRawData = header.hasRawData;
  const writing = { size: parts.size, tables, reader, owned, barrier, data, isRawData, map };
  const writer = new Writer(writing);
  const zeroer = new Zeroer(writing, writer);
  let isActive = false;
  const durably = async ({ durable }: { durable: boolean }): Promise<void> => {
    if (durable) await barrier.pass();
  };
  return {
    ...readingOf(parts, reader, map),
    write: (buffer, offset, options) => writer.write(buffer, offset).then(() => durably(options)),
    zero: (offset, length, options) => zeroer.zero(offset, length, options).then(() => durably(options)),
    flush: () => barrier.pass(),
    activate: async () => {
      await Promise.all([image.growth?.measure(), data.growth?.measure()]);
      // an earlier server may have changed its bits, and moved its refcount table
      const now = await readHeader(image);
      checkWritable(now);
      session.load(now);
      await tables.load();
      await refcounts.load(now, parts.isRepaired && mayReuseFree([...tables.places()].length));
      owned.watch(tables);
      isActive = true;
    },
    close: async () => {
      if (isActive) await owned.close();
    },
  };
}

async function flushAll(image: Disk, data: Disk): Promise<void> {
  await image.flush();
  if (data !== image) await data.flush();
}

function readerOf(
  { size, header, image, data, backing }: Qcow2Parts,
  tables: L2Tables,
  mayWriteInPlace: () => boolean,
): { reader: Reader; map: Qcow2Map | null } {
  const granuleBytes = header.hasExtendedL2 ? header.clusterBytes / SUBCLUSTERS : header.clusterBytes;
  const decoded = new DecodedCache(image, header);
  const reader = new Reader({ size, unitBytes: granuleBytes, tables, data, backing, decoded });
  if (!reader.hasOwnFile) return { reader, map: null };
  const { files } = reader.places;
  const mayWrite = ({ entry }: { entry: { copied: boolean } }): boolean => entry.copied && mayWriteInPlace();
  return { reader, map: new Qcow2Map({ size, granuleBytes, files, reader, mayWrite }) };
}

function readingOf(
  { size, backing, image }: Qcow2Parts,
  reader: Reader,
  map: Qcow2Map | null,
): Pick<RawDisk, 'size' | 'read' | 'extents' | 'changes' | 'map' | 'places'> {
  return {
    size,
    ...placedBy(reader.places),
    ...(map && { map: { map: map.map, start: 0, readOnly: image.readOnly } }),
    read: async (buffer, offset) => {
      const found = await reader.finder.find(offset, buffer.byteLength);
      map?.learn(found);
      await reader.readFound(found, buffer, offset);
    },
    ...(backing !== null && { changes: (offset: number, length: number) => reader.changes(offset, length) }),
  };
}
