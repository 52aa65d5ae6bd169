/** Turns of writers: between threads by shared memory, between processes by locks. */
import { closeSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createTurnMemory, TurnWatch, WriteTurns } from '../../../../mount/fuse/thread/write-turns.js';
import { awaitNoCopies, CopyLease, isWrittenByOthers, markWriter } from '../../../../mount/images/copy-lease.js';
import { memfdCreate } from '../../../../system/libc.js';
import { PAGE_BYTES } from '../../../../system/page.js';

const IMAGE = 3;

/** Two threads' sides, and the main thread's. */
function sides(): { one: WriteTurns; other: WriteTurns; watch: TurnWatch } {
  const memory = createTurnMemory(2);
  return { one: new WriteTurns(memory, 0), other: new WriteTurns(memory, 1), watch: new TurnWatch(memory) };
}

t.test('a write that overlaps another waits until that has ended; other writes do not wait', async (t) => {
  const { one, other, watch } = sides();
  for (const image of [IMAGE, IMAGE + 1]) await watch.allow(image);
  t.ok(one.tryBegin(IMAGE, 10 * PAGE_BYTES, 5 * PAGE_BYTES));
  const cases: [string, number, number, number, boolean][] = [
    ['the same', IMAGE, 10 * PAGE_BYTES, 5 * PAGE_BYTES, false],
    ['its last byte', IMAGE, 15 * PAGE_BYTES - 1, 1, false],
    ['from before into it', IMAGE, 0, 10 * PAGE_BYTES + 1, false],
    ['all of it and more', IMAGE, 0, 2 ** 40, false],
    ['before it', IMAGE, 0, 10 * PAGE_BYTES, true],
    ['behind it', IMAGE, 15 * PAGE_BYTES, 2 ** 42, true],
    ['another image', IMAGE + 1, 10 * PAGE_BYTES, 5 * PAGE_BYTES, true],
  ];
  for (const [what, image, from, length, isFree] of cases) {
    t.equal(other.tryBegin(image, from, length), isFree, what);
    if (isFree) other.end();
  }
  one.end();
  t.ok(other.tryBegin(IMAGE, 10 * PAGE_BYTES, 5 * PAGE_BYTES), 'its turn has come');
});

t.test('threads copy only if allowed, and forbidding it waits until no thread copies', async (t) => {
  const { one, other, watch } = sides();
  one.tryBegin(IMAGE, 0, PAGE_BYTES);
  t.notOk(one.mayCopy(IMAGE), 'not before it is allowed');
  const allowed = watch.allow(IMAGE);
  other.tryBegin(IMAGE, 0, PAGE_BYTES);
  t.notOk(other.mayCopy(IMAGE), 'one still writes without a turn');
  other.end();
  one.end();
  await allowed;
  one.tryBegin(IMAGE, 0, PAGE_BYTES);
  t.ok(one.mayCopy(IMAGE));
  let isForbidden = false;
  const forbidden = watch.forbid(IMAGE).then(() => {
    isForbidden = true;
  });
  other.tryBegin(IMAGE, PAGE_BYTES, PAGE_BYTES);
  t.notOk(other.mayCopy(IMAGE), 'nobody begins');
  await delay(30);
  t.notOk(isForbidden, 'one still copies');
  one.end();
  await forbidden;
});

/** Another open file description of the same memory, as another process has it. */
function again(t: Test, fd: number): number {
  const other = openSync(`/proc/self/fd/${fd}`, 'r+');
  t.teardown(() => closeSync(other));
  return other;
}

t.test('a server copies only while no other keeper lets its clients write', async (t) => {
  const own = memfdCreate('image');
  t.teardown(() => closeSync(own));
  const [keeperPid, otherPid] = [4711, 4712];
  markWriter(again(t, own), keeperPid);
  const lease = CopyLease.take(own, keeperPid);
  t.ok(lease, 'its own keeper is no other');
  const other = again(t, own);
  markWriter(other, otherPid);
  t.ok(isWrittenByOthers(own, keeperPid), 'seen when it looks again');
  t.notOk(await awaitNoCopies(other, 20), 'and that one waits');
  lease?.release();
  t.ok(await awaitNoCopies(other, 0));
  t.equal(CopyLease.take(own, keeperPid), null, 'no lease beside it');
  t.ok(await awaitNoCopies(other, 0), 'nor what is left of one');
});
