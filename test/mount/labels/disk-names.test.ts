/** When the names of disks are read, and what a slow, paused, failing or leaving disk means for the names of others. */
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
  const before = performance.now();
  for (let i = 0; i < 50; i++) await fixture.labels();
  t.ok(performance.now() - before < 40_000, 'nobody waits for them any more');
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

t.test('a pause and a removal wait for a read that is under way, and no other begins', async (t) => {
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
