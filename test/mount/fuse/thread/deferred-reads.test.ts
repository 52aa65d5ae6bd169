/** Reads that are put off: when they are answered, and when the thread waits. */
import t from 'tap';
import { DeferredReads, type PutOff } from '../../../../mount/fuse/thread/deferred-reads.js';
import { NOT_SERVED } from '../../../../mount/fuse/thread/serve-window.js';
import type { ServedWindow } from '../../../../mount/fuse/thread/served-disk.js';

/** the window is used only by the function that answers */
const NOTHING = {} as ServedWindow;

function asRead(offset: number): Omit<PutOff<string>, 'window' | 'begunMs'> {
  return {
    nodeId: 2,
    uniqueId: offset,
    uniqueLow: offset,
    uniqueHigh: 0,
    place: offset,
    offset,
    size: 1,
    served: NOTHING,
  };
}

/** A disk that has loaded the reads for which `isIn` is true, and the calls, in order. */
function openStage(...offsets: number[]) {
  const isIn = new Set<number>();
  /** the other reads that the disk loads while the thread waits for one */
  const meanwhile = new Map<number, number[]>();
  const done: string[] = [];
  const reads = new DeferredReads<string>(
    ({ offset }, mayWait) => {
      if (!mayWait && !isIn.has(offset)) return NOT_SERVED;
      for (const other of mayWait ? (meanwhile.get(offset) ?? []) : []) isIn.add(other);
      done.push(`${mayWait ? 'waited for' : 'answered'} ${offset}`);
      return 16;
    },
    () => done.push('may wait'),
  );
  const add = (offset: number, begunMs = 0): void => {
    reads.add({ ...asRead(offset), window: 'w', begunMs });
  };
  for (const offset of offsets) add(offset);
  return { reads, isIn, meanwhile, done, add };
}

t.test('reads that are ready are answered, and the thread does not wait for the others', (t) => {
  const { reads, isIn, done } = openStage(1, 2, 3, 4);
  isIn.add(2).add(4);
  reads.settle(0);
  t.same(done, ['answered 2', 'answered 4']);
  t.equal(reads.count, 2);
  isIn.add(1).add(3);
  reads.settle(0);
  t.same(done.slice(2), ['answered 1', 'answered 3'], 'once each, the oldest first');
  t.equal(reads.count, 0);
  t.end();
});

t.test('if no read is ready, the thread waits for each, the oldest first', (t) => {
  const { reads, done } = openStage(3, 1, 2);
  reads.settle(0);
  t.same(done, ['may wait', 'waited for 3', 'waited for 1', 'waited for 2']);
  t.equal(reads.count, 0);
  t.end();
});

t.test('the thread waits for a read that is late, even if others are ready', (t) => {
  const { reads, isIn, done, add } = openStage(1);
  add(2, 5);
  isIn.add(2);
  t.equal(reads.isDue(0.5), false);
  t.equal(reads.isDue(1.5), true);
  reads.settle(1.5);
  t.same(done, ['answered 2', 'may wait', 'waited for 1']);
  t.equal(reads.isDue(9), false, 'there is none any more');
  t.end();
});

t.test('reads that become ready during a wait are answered next', (t) => {
  const { reads, meanwhile, done } = openStage(1, 2, 3, 4, 5);
  meanwhile.set(1, [4, 3]);
  meanwhile.set(2, [5]);
  reads.finishAll();
  const waits = ['may wait', 'waited for 1', 'answered 3', 'answered 4', 'waited for 2', 'answered 5'];
  t.same(done, waits);
  t.equal(reads.count, 0);
  reads.finishAll();
  t.same(done, waits, 'the permit is not given away for nothing');
  t.end();
});

t.test('the number of reads that are put off is limited', (t) => {
  const { reads, add } = openStage();
  for (let offset = 0; offset < 31; offset++) add(offset);
  t.equal(reads.isFull, false);
  add(31);
  t.equal(reads.isFull, true);
  t.end();
});

t.test('the thread waits for the reads of a window that was taken away, and no others', (t) => {
  const { reads, done } = openStage(1, 2);
  reads.add({ ...asRead(3), window: 'other', begunMs: 0 });
  reads.finishOf('other');
  t.same(done, ['may wait', 'waited for 3']);
  reads.finishOf('other');
  t.equal(done.length, 2, 'there is none any more');
  t.equal(reads.count, 2);
  t.end();
});
