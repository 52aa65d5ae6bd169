/**
 * The disk of a qcow2 image, put together from its parts.
 *
 *      request ──► Reader ──► Finder ──► L2Tables                       ┐
 *              ├─► Writer, Zeroer ──► Owned ──► Session, Refcounts      ├──► image, data file, backing file
 *              └─► Committer ──► all of these                           │
 *                  each tells LookupMap where bytes are ──► threads      ┘
 */
import { defined } from '../defined.js';
import type { Disk } from '../disk.js';
import type { CommitContext, RawDisk } from '../driver.js';
import { Barrier } from '../lookup/barrier.js';
import { DecodedCache } from '../lookup/decoded-cache.js';
import { Reader } from '../lookup/reader.js';
import { type PartsOptions, serveParts } from '../lookup/serve-parts.js';
import { UnitLock } from '../lookup/unit-lock.js';
import { UnderWay } from '../map/under-way.js';
import { type Header, readHeader, unitBytesOf } from './format/header.js';
import { mayReuseFree } from './limits.js';
import { readCluster, type Stream } from './reading/compressed.js';
import { type Found, Qcow2Finder } from './reading/find.js';
import { type L1Place, L2Tables } from './reading/l2-tables.js';
import { mayHaveHoles } from './reading/preallocated.js';
import { Committer } from './writing/commit.js';
import { Owned } from './writing/owned.js';
import { Refcounts } from './writing/refcounts.js';
import { Session } from './writing/session.js';
import { Writer } from './writing/writer.js';
import { Zeroer } from './writing/zero.js';

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
  const { reading } = readerOf(parts, tables);
  return { ...reading, activate: () => tables.load(), close: async () => {} };
}

export function writableDisk(parts: Qcow2Parts): RawDisk {
  const { image, header, data, backing, l1 } = parts;
  const hasSnapshots = header.snapshots.count > 0;
  const barrier = new Barrier(() => flushAll(image, data));
  const session = new Session(image, barrier);
  const refcounts = new Refcounts({ image, header, barrier });
  const owned = new Owned({
    ...{ image, data, header, l1, session, refcounts, barrier },
    stopThreads: () => map?.forgetAll(),
  });
  const tables = new L2Tables(image, header, l1, (table) => owned.judge(table));
  const reads = new UnderWay();
  const lock = new UnitLock(header.clusterBytes);
  const { reader, reading, map } = readerOf(parts, tables, {
    mayWrite: () => owned.mayWriteInPlace,
    isStable: (offset, length) => lock.isFree(offset, length),
  });
  const isRawData = header.hasRawData;
  const writing = { size: parts.size, lock, tables, reader, owned, barrier, data, isRawData, map };
  const writer = new Writer(writing);
  const zeroer = new Zeroer(writing, writer);
  let isActive = false;
  const durably = async ({ durable }: { durable: boolean }): Promise<void> => {
    if (durable) await barrier.pass();
  };
  return {
    ...reading,
    read: (buffer, offset) => reads.run(() => reading.read(buffer, offset)),
    ...(backing !== null && {
      commit: (context: CommitContext) => new Committer({ ...writing, backing, reads, hasSnapshots }).commit(context),
    }),
    write: (buffer, offset, options) => writer.write(buffer, offset).then(() => durably(options)),
    zero: (offset, length, options) => zeroer.zero(offset, length, options).then(() => durably(options)),
    flush: () => barrier.flush(),
    activate: async () => {
      await Promise.all([image.growth?.measure(), data.growth?.measure()]);
      // an earlier server may have changed its bits, and moved its refcount table
      const now = await readHeader(image);
      session.load(now);
      await tables.load();
      await refcounts.load(now, parts.isRepaired && mayReuseFree(tables.count));
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
  writing?: PartsOptions['writing'],
): { reader: Reader<Found> } & ReturnType<typeof serveParts> {
  const granuleBytes = unitBytesOf(header);
  const decoded = new DecodedCache<Stream>({
    unitBytes: header.clusterBytes,
    decode: (stream) => readCluster(image, stream, header),
  });
  const reader = new Reader({
    ...{ size, unitBytes: granuleBytes, finder: new Qcow2Finder(tables), data, backing },
    decode: async ({ offset, place, entry }, buffer) => {
      const cluster = await decoded.read(entry.place, entry);
      buffer.set(cluster.subarray(offset - place, offset - place + buffer.byteLength));
    },
    mayHaveHoles: () => mayHaveHoles(image, data, header),
  });
  const { readOnly } = image;
  return { reader, ...serveParts(reader, { size, granuleBytes, readOnly, ...defined({ writing }) }) };
}
