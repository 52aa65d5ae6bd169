import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import type { Disk } from '../../../drivers/disk.js';
import { frontDisk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import { parseL1 } from '../../../drivers/qcow2/format/entries.js';
import { type Header, readHeader } from '../../../drivers/qcow2/format/header.js';
import { findSnapshot, type Snapshot, visitSnapshots } from '../../../drivers/qcow2/format/snapshots.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { diskOf, seed } from '../formats/image-bytes.js';
import { qemuImg, qemuIo, whyNoQemu } from '../qemu.js';

const CLUSTER = 512;
const MIB = 1 << 20;

interface Fields {
  readonly id: string;
  readonly name: string;
  readonly l1: readonly [offset: number | bigint, entries: number];
  readonly vmState: number;
  /** null: as old writers, without extra data */
  readonly extra: { readonly vmState: bigint; readonly size: bigint; readonly bytes?: number } | null;
  readonly extraBytes: number;
}

/** L1 tables of one entry are in clusters 4 to 9, and the snapshot table begins at cluster 10 */
const L1 = 4 * CLUSTER;
const TABLE = 10 * CLUSTER;
const SIZE = 4 * CLUSTER;

function entry(fields: Partial<Fields>): Buffer {
  const { id = '1', name = 'one', l1 = [L1, 1], vmState = 0, extra = { vmState: 0n, size: BigInt(SIZE) } } = fields;
  const head = Buffer.alloc(40);
  head.writeBigUInt64BE(BigInt(l1[0]), 0);
  head.writeUInt32BE(l1[1], 8);
  head.writeUInt16BE(Buffer.byteLength(id), 12);
  head.writeUInt16BE(Buffer.byteLength(name), 14);
  head.writeUInt32BE(1_700_000_000, 16);
  head.writeUInt32BE(500_000_000, 20);
  head.writeUInt32BE(vmState, 32);
  const more = Buffer.alloc(extra === null ? 0 : (extra.bytes ?? 24));
  if (extra !== null) {
    more.writeBigUInt64BE(extra.vmState, 0);
    if (more.length >= 16) more.writeBigUInt64BE(extra.size, 8);
  }
  head.writeUInt32BE(fields.extraBytes ?? more.length, 36);
  const bytes = Buffer.concat([head, more, Buffer.from(id), Buffer.from(name)]);
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 7)]);
}

function image(entries: readonly Buffer[], count = entries.length): { disk: Disk; header: Header } {
  const bytes = Buffer.concat([Buffer.alloc(TABLE), ...entries]);
  const header = {
    ...{ clusterBytes: CLUSTER, size: 9 * CLUSTER, hasExtendedL2: false },
    snapshots: { offset: TABLE, count },
  } as Header;
  return { disk: diskOf(bytes), header };
}

async function all({ disk, header }: { disk: Disk; header: Header }): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = [];
  for await (const snapshot of visitSnapshots(disk, header)) snapshots.push(snapshot);
  return snapshots;
}

t.test('the entries of a table', async (t) => {
  const entries = [
    entry({}),
    entry({ id: '22', name: 'zwei ☃', l1: [5 * CLUSTER, 2], vmState: 7, extra: { vmState: 9n, size: 1024n } }),
    entry({ id: '', name: '', extra: null, vmState: 3 }),
    entry({ name: 'eight bytes', extra: { vmState: 2n ** 40n, size: 0n, bytes: 8 } }),
    entry({ name: 'many bytes', extra: { vmState: 1n, size: 512n, bytes: 1024 } }),
  ];
  const date = new Date(1_700_000_000_500);
  t.same(await all(image(entries)), [
    { id: '1', name: 'one', l1: { offset: L1, entries: 1 }, size: SIZE, vmStateBytes: 0, date },
    { id: '22', name: 'zwei ☃', l1: { offset: 5 * CLUSTER, entries: 2 }, size: 1024, vmStateBytes: 9, date },
    { id: '', name: '', l1: { offset: L1, entries: 1 }, size: 9 * CLUSTER, vmStateBytes: 3, date },
    { id: '1', name: 'eight bytes', l1: { offset: L1, entries: 1 }, size: 9 * CLUSTER, vmStateBytes: 2 ** 40, date },
    { id: '1', name: 'many bytes', l1: { offset: L1, entries: 1 }, size: 512, vmStateBytes: 1, date },
  ]);
  t.same(await all(image([])), []);
});

t.test('a snapshot is found by its id, else by its name', async (t) => {
  const entries = [
    entry({ id: '1', name: '2' }),
    entry({ id: '2', name: 'two', l1: [5 * CLUSTER, 1] }),
    entry({ id: '3', name: 'same' }),
    entry({ id: '4', name: 'same' }),
  ];
  const { disk, header } = image(entries);
  t.match(await findSnapshot(disk, header, '1'), { id: '1', name: '2' });
  t.match(await findSnapshot(disk, header, '2'), { id: '2', name: 'two', l1: { offset: 5 * CLUSTER } }, 'ids first');
  t.match(await findSnapshot(disk, header, 'two'), { id: '2' });
  t.match(await findSnapshot(disk, header, '4'), { id: '4' });
  await t.rejects(findSnapshot(disk, header, 'same'), {
    code: 'USAGE',
    message: "several snapshots have the name 'same'",
    hint: "give the id of one: '3', '4'",
  });
  await t.rejects(findSnapshot(disk, header, 'tw'), {
    code: 'NOT_FOUND',
    message: "the image has no snapshot 'tw'",
    hint: "name one with --option snapshot=NAME: '2', 'two', 'same', 'same'",
  });
  const none = image([]);
  await t.rejects(findSnapshot(none.disk, none.header, 'a'), { code: 'NOT_FOUND', hint: 'it has no snapshots' });
  const many = image(Array.from({ length: 12 }, (_, i) => entry({ id: `${i}`, name: `n${i}` })));
  await t.rejects(findSnapshot(many.disk, many.header, 'a'), { code: 'NOT_FOUND', hint: /: 'n0', .*'n9' and 2 more$/ });
});

t.test('a table of many snapshots', async (t) => {
  const count = 65_536;
  const few = image(Array.from({ length: count }, (_, i) => entry({ id: `${i + 1}`, name: `snapshot ${i}` })));
  t.match(await findSnapshot(few.disk, few.header, 'snapshot 65535'), { id: '65536' });
  const name = 'x'.repeat(65_535);
  const { disk, header } = image(Array<Buffer>(1100).fill(entry({ name })), count);
  await t.rejects(all({ disk, header }), { code: 'FAILED', message: /snapshot table has more than 64 MiB/ });
});

t.test('each fault has its line', async (t) => {
  const refuse = async (fields: Partial<Fields>, message: RegExp, code = 'FAILED') => {
    const { disk, header } = image([entry({ id: '7', ...fields }), Buffer.alloc(2000)], 1);
    await t.rejects(findSnapshot(disk, header, '7'), { code, message }, String(message));
  };
  const disk = (size: bigint): Partial<Fields> => ({ extra: { vmState: 0n, size } });
  await refuse({ extraBytes: 1025 }, /has 1025 bytes of extra data, more than 1024/);
  await refuse({ extraBytes: 0xffffffff }, /has 4294967295 bytes of extra data/);
  await refuse({ l1: [0, 1] }, /L1 table of the snapshot 'one' begins at byte 0$/);
  await refuse({ l1: [L1 + 1, 1] }, /begins at byte 2049/);
  await refuse({ l1: [2n ** 64n - 512n, 1] }, /the L1 table of the snapshot 'one' is not inside the image/);
  await refuse({ l1: [50 * CLUSTER, 1] }, /not inside the image/);
  await refuse({ l1: [L1, 10_000] }, /not inside the image/);
  await refuse({ l1: [L1, 0xffffffff] }, /has 4294967295 entries/);
  await refuse({ l1: [L1, 0] }, /too small for 2048 bytes/);
  await refuse(disk(64n * 512n + 512n), /too small for 33280 bytes/);
  await refuse(disk(2n ** 64n - 512n), /the size of the snapshot 'one' is too large/);
  await refuse(disk(511n), /the disk of the snapshot 'one' has no bytes/, 'UNSUPPORTED');
  for (const length of [0, 39, 40, entry({}).length - 5]) {
    const cut = image([entry({}).subarray(0, length)], 1);
    await t.rejects(all(cut), { code: 'FAILED', message: /snapshot table ends after the end of the image/ });
  }
  const { disk: one, header } = image([entry({})], 2);
  await t.rejects(all({ disk: one, header }), { message: /ends after the end/ }, 'fewer entries than the header says');
  t.match(await findSnapshot(one, header, '1'), { name: 'one' }, 'but the first may be used');
});

t.test('hostile tables are refused in one line, or have snapshots', async (t) => {
  t.comment(`seed ${seed}`);
  const valid = Buffer.concat([entry({}), entry({ id: '2', name: 'two' }), entry({ id: '3', extra: null })]);
  const edit = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) });
  const property = fc.asyncProperty(fc.array(edit, { maxLength: 5 }), fc.nat(4), async (edits, count) => {
    const bytes = Buffer.from(valid);
    for (const { at, byte } of edits) bytes[at] = byte;
    const { disk, header } = image([bytes], count);
    for (const id of ['1', '2', 'two', 'x']) {
      try {
        const { size, l1 } = await findSnapshot(disk, header, id);
        t.ok(size > 0 && l1.entries * 8 + l1.offset <= TABLE + CLUSTER && l1.entries * 64 * CLUSTER >= size);
      } catch (error) {
        if (!(error instanceof FusetapError) || /[\n\0]/.test(`${error.message}${error.hint}`)) throw error;
      }
    }
  });
  await fc.assert(property, { seed, numRuns: 1000 });
});

t.test('snapshots of QEMU', { skip: whyNoQemu() }, async (t) => {
  for (const options of ['compat=1.1', 'compat=0.10', 'compat=1.1,extended_l2=on', 'cluster_size=512']) {
    const path = join(t.testdir(), 'disk.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '5M');
    qemuIo('qcow2', path, 'write -P 1 0 1M');
    qemuImg('snapshot', '-c', 'first', path);
    qemuIo('qcow2', path, 'write -P 2 0 2M');
    qemuImg('snapshot', '-c', 'the second', path);
    const isResizable = !options.includes('0.10');
    if (isResizable) qemuImg('resize', '-q', path, '9M');
    const bytes = await readFile(path);
    const disk = frontDisk(bufferDisk(bytes), { readOnly: true });
    const header = await readHeader(disk);
    const { snapshots: theirs } = JSON.parse(qemuImg('info', '--output', 'json', path)) as {
      snapshots: Record<string, unknown>[];
    };
    const ours = (await all({ disk, header })).map(({ id, name, vmStateBytes, date }) => ({
      ...{ id, name, 'vm-state-size': vmStateBytes },
      ...{ 'date-sec': Math.floor(date.getTime() / 1000) },
    }));
    t.match(theirs, ours, options);
    t.match(await findSnapshot(disk, header, 'first'), { id: '1', size: 5 * MIB });
    const { l1, size } = await findSnapshot(disk, header, 'the second');
    t.equal(size, 5 * MIB, isResizable ? 'the size that the disk had' : 'the size');
    const first = parseL1(bytes.readUInt32BE(l1.offset), bytes.readUInt32BE(l1.offset + 4), header.clusterBytes);
    t.ok(first.place > 0 && first.place < bytes.length, 'it has an L2 table');
  }
});
