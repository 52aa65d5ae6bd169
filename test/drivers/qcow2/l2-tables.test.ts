/** Changes of an L2 table, while the image takes writes in no time, later, or fails them. */
import t from 'tap';
import type { Disk } from '../../../drivers/disk.js';
import { putEntry } from '../../../drivers/qcow2/format/entries.js';
import type { Header } from '../../../drivers/qcow2/format/header.js';
import { L2Tables } from '../../../drivers/qcow2/reading/l2-tables.js';
import { randomNumbers, seedOf } from '../../rules/random.js';

const CLUSTER = 512;
const TABLE_AT = 2 * CLUSTER;
const ENTRIES = CLUSTER / 8;

/** An image in memory; `wait` tells how many turns of promises a write takes. */
function imageOf(bytes: Buffer, wait: () => number, fails: () => boolean): Disk {
  const disk: Pick<Disk, 'size' | 'read' | 'write'> = {
    size: bytes.length,
    async read(buffer, offset) {
      return bytes.copy(buffer, 0, offset);
    },
    async write(buffer, offset) {
      for (let turns = wait(); turns > 0; turns--) await null;
      if (fails()) throw Object.assign(new Error('it failed'), { errno: 5 });
      bytes.set(buffer, offset);
      return buffer.byteLength;
    },
  };
  return disk as Disk;
}

/** A table with no entries in an image. */
async function makeTables(image: Disk): Promise<L2Tables> {
  // what the tables need of a header
  const header = { clusterBytes: CLUSTER, hasExtendedL2: false, hasDataFile: false, compression: 'deflate' };
  const tables = new L2Tables(image, header as unknown as Header, { offset: CLUSTER, entries: 1 });
  await tables.load();
  await tables.place(0, TABLE_AT, Buffer.alloc(CLUSTER), 0x8000_0000);
  return tables;
}

const setEntry = (tables: L2Tables, cluster: number, place: number): Promise<void> =>
  tables.change(cluster, 1, (table) => putEntry(table, cluster * 8, place, 0x8000_0000));

t.test('a change is in the image when it is told to be, whatever came before and after it', async (t) => {
  const random = randomNumbers(seedOf(t));
  for (let round = 0; round < 300; round++) {
    const bytes = Buffer.alloc(4 * CLUSTER);
    const tables = await makeTables(
      imageOf(
        bytes,
        () => random(6),
        () => false,
      ),
    );
    const change = async (cluster: number): Promise<void> => {
      for (let turns = random(12); turns > 0; turns--) await null;
      await setEntry(tables, cluster, (cluster + 8) * CLUSTER);
      const stored = bytes.readBigUInt64BE(TABLE_AT + cluster * 8) & 0x00ff_ffff_ffff_fe00n;
      if (stored !== BigInt((cluster + 8) * CLUSTER)) throw new Error(`entry ${cluster} is not in the image`);
    };
    await Promise.all(Array.from({ length: ENTRIES }, (_, cluster) => change(cluster)));
  }
  t.pass('300 rounds');
});

t.test('after a failed write, no change is told to be in the image that is not', async (t) => {
  const random = randomNumbers(seedOf(t));
  let refused = 0;
  for (let round = 0; round < 300; round++) {
    const bytes = Buffer.alloc(4 * CLUSTER);
    let writes = 0;
    // the first write is that of the L1 entry
    const failing = 2 + random(4);
    const tables = await makeTables(
      imageOf(
        bytes,
        () => random(6),
        () => ++writes === failing,
      ),
    );
    const change = async (cluster: number): Promise<void> => {
      for (let turns = random(12); turns > 0; turns--) await null;
      try {
        await setEntry(tables, cluster, (cluster + 8) * CLUSTER);
      } catch {
        refused += 1;
        return;
      }
      const stored = bytes.readBigUInt64BE(TABLE_AT + cluster * 8) & 0x00ff_ffff_ffff_fe00n;
      if (stored !== BigInt((cluster + 8) * CLUSTER)) throw new Error(`entry ${cluster} is not in the image`);
    };
    await Promise.all(Array.from({ length: ENTRIES }, (_, cluster) => change(cluster)));
  }
  t.ok(refused > 0, `${refused} were refused`);
});

t.test('a table that is read while another takes its place never replaces it', async (t) => {
  const bytes = Buffer.alloc(16 * CLUSTER);
  const place = 8 * CLUSTER;
  const header = { clusterBytes: CLUSTER, hasExtendedL2: false, hasDataFile: false, compression: 'deflate' };
  let judged = 0;
  let next: Promise<void> = Promise.resolve();
  const image = imageOf(
    bytes,
    () => 0,
    () => false,
  );
  const tables = new L2Tables(image, header as unknown as Header, { offset: CLUSTER, entries: 1 }, async () => {
    judged++;
    await next;
  });
  bytes.writeBigUInt64BE(BigInt(TABLE_AT), CLUSTER);
  await tables.load();
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  let finishFirst = (): void => {};
  next = new Promise((resolve) => {
    finishFirst = resolve;
  });
  const reader = tables.get(0);
  await turn();
  t.equal(judged, 1);
  // meanwhile the table is copied, and the copy is changed
  bytes.copy(bytes, place, TABLE_AT, TABLE_AT + CLUSTER);
  const fresh = await tables.place(0, place, Buffer.alloc(CLUSTER), 0x8000_0000);
  await setEntry(tables, 5, 10 * CLUSTER);
  finishFirst();
  t.equal(await reader, fresh, 'the reader gets the table of now');
  t.equal(tables.entry(tables.peek(0) ?? null, 5).place, 10 * CLUSTER);
  await Promise.all([
    setEntry(tables, 4, 11 * CLUSTER),
    setEntry(tables, 3, 12 * CLUSTER),
    setEntry(tables, 6, 9 * CLUSTER),
  ]);
  t.equal(bytes.readBigUInt64BE(place + 40) & 0x00ff_ffff_ffff_fe00n, BigInt(10 * CLUSTER), 'and the image keeps it');
});
