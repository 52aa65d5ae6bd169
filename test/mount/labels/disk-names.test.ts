/** When the names of disks are read, and what a slow, paused, failing or leaving disk means for the names of others. */
import { queryObjects } from 'node:v8';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { DiskNames } from '../../../mount/labels/disk-names.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { IoGate } from '../../../mount/transport/io-gate.js';
import type { BusFile } from '../../../mount/transport/transport.js';
import { Tree } from '../../../mount/transport/tree.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { swapSpace } from './swap-space.js';

interface Fixture {
  readonly names: DiskNames;
  readonly tree: Tree;
  readonly ledger: Ledger;
  readonly gate: IoGate;
  add(nodeId: number, name: string, disk: Disk, more?: Partial<BusFile>): void;
  labels(): Promise<string[]>;
}

function makeFixture(): Fixture {
  const [tree, ledger, gate] = [new Tree(), new Ledger(createLedger()), new IoGate()];
  const names = new DiskNames({ tree, ledger, gate });
  return {
    ...{ names, tree, ledger, gate },
    add: (nodeId, name, disk, more = {}) => {
      const index = nodeId - 2;
      ledger.resetFile(index, { mode: 0o600, uid: 0, gid: 0 }, 0);
      const file = { nodeId, name, disk, ledgerIndex: index, flushIndex: index, inherited: false, backingId: null };
      tree.add({ ...file, ...more });
    },
    labels: async () => {
      const links = await names.linksAfter('label', 0);
      return links.map(({ name, node }) => `${name} ${node.file.name}`);
    },
  };
}

interface Gated {
  readonly disk: Disk;
  readonly bytes: Buffer;
  /** how often it was read */
  reads: number;
  /** set: reads wait for it */
  wait: Promise<void> | null;
  fails: boolean;
}

/** A disk whose reads are counted, and may wait or fail. */
function gated(label: string): Gated {
  const bytes = swapSpace(label);
  const inner = bufferDisk(bytes);
  const self: { -readonly [Key in keyof Gated]: Gated[Key] } = {
    ...{ disk: null as unknown as Disk, bytes, reads: 0, wait: null, fails: false },
  };
  const read = async (buffer: Uint8Array, offset: number): Promise<void> => {
    self.reads += 1;
    await self.wait;
    if (self.fails) throw Object.assign(new Error('broken'), { code: 'EIO' });
    await inner.read(buffer, offset);
  };
  self.disk = frontDisk({ ...inner, size: bytes.length, read, close: async () => {} }, { readOnly: false });
  return self;
}

function never(t: Test): Promise<void> {
  let end: () => void = () => {};
  t.teardown(() => end());
  return new Promise((resolve) => {
    end = resolve;
  });
}

t.test('a disk is read again only if it was written', async (t) => {
  const fixture = makeFixture();
  const a = gated('one');
  fixture.add(2, 'xvda', a.disk);
  t.same(await fixture.labels(), ['one xvda']);
  const first = a.reads;
  await fixture.labels();
  t.equal(a.reads, first, 'nothing was written');
  a.bytes.write('two', 1052);
  fixture.ledger.noteWrite(0, 1);
  t.same(await fixture.labels(), ['two xvda']);
  a.bytes.fill(0);
  fixture.ledger.noteFailedWrite(0);
  t.same(await fixture.labels(), [], 'a write that failed may have changed something');
});

t.test('a write to a partition is one to its disk, and the other way round', async (t) => {
  const fixture = makeFixture();
  const [whole, part] = [gated('whole'), gated('part')];
  fixture.add(2, 'xvda', whole.disk);
  fixture.add(3, 'xvda1', part.disk, { flushIndex: 0, part: { whole: 2, offset: 512 } });
  t.same(await fixture.labels(), ['whole xvda', 'part xvda1']);
  part.bytes.write('newer', 1052);
  fixture.ledger.noteWrite(0, 1);
  t.same(await fixture.labels(), ['whole xvda', 'newer xvda1']);
});

t.test('of several with the same name, the lowest slot has the link', async (t) => {
  const fixture = makeFixture();
  fixture.add(2, 'xvdb', gated('same').disk);
  fixture.add(3, 'xvda', gated('same').disk);
  fixture.add(4, 'xvdc', gated('same').disk);
  t.same(await fixture.labels(), ['same xvda']);
  t.equal((await fixture.names.find('label', 'same'))?.file.name, 'xvda');
  const leaving = fixture.tree.byId(3);
  if (leaving !== undefined) leaving.leaving = true;
  t.same(await fixture.labels(), ['same xvdb'], 'one that is leaving has no link');
});

t.test('names that cannot be the name of a file', async (t) => {
  const fixture = makeFixture();
  for (const [i, label] of ['.', '..', '/', '\n'].entries()) fixture.add(i + 2, `xvd${'abcd'[i]}`, gated(label).disk);
  const labels = await fixture.labels();
  t.same(labels, ['\\x2e xvda', '\\x2e\\x2e xvdb', '\\x2f xvdc'], 'a blank label is none');
});

t.test('a disk that hangs keeps its names, and does not delay the others', async (t) => {
  const fixture = makeFixture();
  const [slow, quick] = [gated('slow'), gated('quick')];
  fixture.add(2, 'xvda', slow.disk);
  fixture.add(3, 'xvdb', quick.disk);
  t.same(await fixture.labels(), ['slow xvda', 'quick xvdb']);
  slow.wait = never(t);
  slow.bytes.write('other', 1052);
  fixture.ledger.noteWrite(0, 1);
  t.same(await fixture.labels(), ['slow xvda', 'quick xvdb'], 'its last known name');
  const reads = slow.reads;
  for (let i = 0; i < 20; i++) {
    quick.bytes.write(`quick${i}\0`, 1052);
    fixture.ledger.noteWrite(1, 2 + i);
    t.same(await fixture.labels(), ['slow xvda', `quick${i} xvdb`]);
  }
  t.equal(slow.reads, reads, 'it is not asked again while it does not answer');
});

t.test('many disks that hang leave one thread of four, and do not hang the names of the others', async (t) => {
  const fixture = makeFixture();
  const hanging = Array.from({ length: 8 }, (_, i) => gated(`hung${i}`));
  const wait = never(t);
  for (const [i, each] of hanging.entries()) {
    each.wait = wait;
    fixture.add(i + 2, `xvd${'abcdefgh'[i]}`, each.disk);
  }
  t.same(await fixture.labels(), []);
  t.equal(
    hanging.reduce((sum, { reads }) => sum + reads, 0),
    3,
    'reads under way',
  );
  const durations: number[] = [];
  for (let i = 0; i < 50; i++) {
    const begunMs = performance.now();
    await fixture.labels();
    durations.push(performance.now() - begunMs);
  }
  // the first waited for a second
  const waits = durations.filter((ms) => ms > 900);
  t.same(waits, [], 'nobody waits for them any more');
});

t.test('lookups of a disk that hangs use no memory that stays', async (t) => {
  const fixture = makeFixture();
  const disk = gated('hung');
  disk.wait = never(t);
  fixture.add(2, 'xvda', disk.disk);
  await fixture.labels();
  const before = queryObjects(Promise, { format: 'count' });
  for (let i = 0; i < 1_000; i++) {
    fixture.ledger.noteWrite(0, i);
    await fixture.labels();
  }
  const more = queryObjects(Promise, { format: 'count' }) - before;
  t.ok(more < 200, `${more} more promises after 1000 lookups`);
});

t.test('a reading that waits for its turn does not hold its disk', async (t) => {
  const fixture = makeFixture();
  for (let i = 0; i < 3; i++) {
    const hung = gated(`hung${i}`);
    hung.wait = never(t);
    fixture.add(i + 2, `xvd${'abc'[i]}`, hung.disk);
  }
  const [healthy, next] = [gated('healthy'), gated('next')];
  fixture.add(9, 'xvdd', healthy.disk);
  t.same(await fixture.labels(), []);
  t.ok(fixture.names.oldestReadMs() > 900, 'the reads that hang are told');
  await fixture.gate.pause(9);
  const node = fixture.tree.byId(9);
  if (node !== undefined) node.file = { ...node.file, disk: next.disk };
  fixture.gate.resume(9);
  fixture.tree.remove(9);
  await fixture.gate.idle(9);
  t.equal(healthy.reads, 0);
});

t.test('names that are not those of now are told as such', async (t) => {
  const fixture = makeFixture();
  const [a, b, c] = [gated('a'), gated('b'), gated('c')];
  for (const [i, each] of [a, b, c].entries()) fixture.add(i + 2, `xvd${'abc'[i]}`, each.disk);
  const unknown = async (): Promise<string[]> =>
    (await fixture.names.all()).flatMap(({ vdev, known }) => (known === false ? vdev : []));
  t.same(await unknown(), []);
  await fixture.gate.pause(2);
  t.same(await unknown(), [], 'paused, and not written since its reading');
  fixture.ledger.noteWrite(0, 1);
  t.same(await unknown(), ['xvda'], 'paused, and written since its reading');
  b.fails = true;
  fixture.ledger.noteWrite(1, 1);
  t.same(await unknown(), ['xvda', 'xvdb'], 'it cannot be read');
  c.wait = never(t);
  fixture.ledger.noteWrite(2, 1);
  t.same(await unknown(), ['xvda', 'xvdb', 'xvdc'], 'it hangs');
  t.match(await fixture.names.all(), [{ label: 'a' }, { label: null }, { label: 'c' }], 'the last known names');
});

t.test('lookups at the same time share one refresh, and see the write before them', async (t) => {
  const fixture = makeFixture();
  const a = gated('one');
  fixture.add(2, 'xvda', a.disk);
  t.ok(await fixture.names.find('label', 'one'));
  const after = t.capture(fixture.tree, 'after', fixture.tree.after);
  const first = fixture.names.find('label', 'two');
  a.bytes.write('two', 1052);
  fixture.ledger.noteWrite(0, 1);
  const found = await Promise.all([first, ...Array.from({ length: 50 }, () => fixture.names.find('label', 'two'))]);
  t.ok(found.every((node) => node?.file.name === 'xvda'));
  t.ok(after().length < 5, 'one look at the tree for all');
});

t.test('the sectors of a partition table are those of the attach', async (t) => {
  const bytes = Buffer.alloc(1 << 20);
  // an MBR that counts in sectors of 4096 bytes
  bytes.writeUInt32LE(0x12345678, 440);
  bytes.set([0, 0, 2, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0, 0], 446);
  bytes.writeUInt16LE(0xaa55, 510);
  const fixture = makeFixture();
  const disk = frontDisk({ ...bufferDisk(bytes), size: bytes.length, close: async () => {} }, { readOnly: false });
  fixture.add(2, 'xvda', disk, { sectorBytes: 4096 });
  fixture.add(3, 'xvda1', gated('part').disk, { flushIndex: 0, part: { whole: 2, offset: 8 * 4096 } });
  t.equal((await fixture.names.find('partuuid', '12345678-01'))?.file.name, 'xvda1');
});

t.test('a disk that answers late has its names later', async (t) => {
  const fixture = makeFixture();
  const late = gated('late');
  let answer: () => void = () => {};
  late.wait = new Promise((resolve) => {
    answer = resolve;
  });
  fixture.add(2, 'xvda', late.disk);
  t.same(await fixture.labels(), []);
  answer();
  await fixture.gate.idle(2);
  t.same(await fixture.labels(), ['late xvda']);
});

t.test('a paused disk is not read, and keeps its names', async (t) => {
  const fixture = makeFixture();
  const [a, b] = [gated('a'), gated('b')];
  fixture.add(2, 'xvda', a.disk);
  t.same(await fixture.labels(), ['a xvda']);
  fixture.add(3, 'xvdb', b.disk);
  await fixture.gate.pause(2);
  await fixture.gate.pause(3);
  a.bytes.write('x', 1052);
  fixture.ledger.noteWrite(0, 1);
  t.same(await fixture.labels(), ['a xvda'], 'the last known name; none if it was never read');
  t.equal(b.reads, 0);
  fixture.gate.resume(2);
  fixture.gate.resume(3);
  t.same(await fixture.labels(), ['x xvda', 'b xvdb']);
});

t.test('a pause waits for a read that is under way, and no other begins', async (t) => {
  const fixture = makeFixture();
  const disk = gated('a');
  let answer: () => void = () => {};
  disk.wait = new Promise((resolve) => {
    answer = resolve;
  });
  fixture.add(2, 'xvda', disk.disk);
  const asked = fixture.labels();
  while (disk.reads === 0) await new Promise(setImmediate);
  let isPaused = false;
  const paused = fixture.gate.pause(2).then(() => {
    isPaused = true;
  });
  await new Promise(setImmediate);
  t.notOk(isPaused);
  answer();
  await paused;
  await asked;
});

t.test('a removal waits for a read that is under way, and no other begins', async (t) => {
  const fixture = makeFixture();
  const disk = gated('a');
  let answer: () => void = () => {};
  disk.wait = new Promise((resolve) => {
    answer = resolve;
  });
  fixture.add(2, 'xvda', disk.disk);
  const asked = fixture.labels();
  while (disk.reads === 0) await new Promise(setImmediate);
  const reads = disk.reads;
  fixture.tree.remove(2);
  let isIdle = false;
  const idle = fixture.gate.idle(2).then(() => {
    isIdle = true;
  });
  for (let i = 0; i < 10; i++) await new Promise(setImmediate);
  t.notOk(isIdle);
  answer();
  await idle;
  t.same(await asked, [], 'it is gone');
  t.equal(disk.reads, reads);
});

t.test('a disk that cannot be read has no names', async (t) => {
  const fixture = makeFixture();
  const disk = gated('a');
  fixture.add(2, 'xvda', disk.disk);
  t.same(await fixture.labels(), ['a xvda']);
  disk.fails = true;
  fixture.ledger.noteWrite(0, 1);
  t.same(await fixture.labels(), []);
  t.match(await fixture.names.all(), [{ vdev: 'xvda', slot: 51712, type: null, label: null }]);
});

t.test('a swapped disk has the names of the new one', async (t) => {
  const fixture = makeFixture();
  fixture.add(2, 'xvda', gated('old').disk);
  t.same(await fixture.labels(), ['old xvda']);
  const node = fixture.tree.byId(2);
  if (node !== undefined) node.file = { ...node.file, disk: gated('new').disk };
  t.same(await fixture.labels(), ['new xvda']);
});

t.test('500 disks', async (t) => {
  const fixture = makeFixture();
  for (let i = 0; i < 500; i++) fixture.add(i + 2, `n${i}`, gated(`disk${i}`).disk);
  const links = await fixture.labels();
  t.equal(links.length, 500);
  const begun = performance.now();
  for (let i = 0; i < 500; i++) t.ok(await fixture.names.find('label', `disk${i}`));
  t.comment(`${Math.round(performance.now() - begun)} ms for 500 lookups`);
});
