import { closeSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import {
  areaOfThread,
  bucketStartUs,
  CounterPages,
  CountersReader,
  countRequest,
  createStats,
  DISCARD,
  FLUSH,
  MAIN_AREA,
  mapCounters,
  READ,
  readStats,
  resetStats,
  WRITE,
} from '../../../mount/ledger/counters.js';
import { MAX_FILES } from '../../../mount/ledger/ledger.js';

const fd = createStats();
t.teardown(() => closeSync(fd));
const NONE = { requests: 0, bytes: 0, errors: 0, latencyUs: { p50: null, p99: null, max: null } };

t.test('nothing was counted', async (t) => {
  t.same(readStats(fd, 8191), { read: NONE, write: NONE, flush: NONE, discard: NONE });
});

t.test('threads and kinds add up, vbds stay apart', async (t) => {
  const [main, thread] = [new CounterPages(fd, MAIN_AREA), new CounterPages(fd, areaOfThread(21))];
  t.equal(main.of(3), main.of(3), 'a page is mapped once');
  countRequest(main.of(3), READ, 0.01, 4096);
  countRequest(thread.of(3), READ, 0.01, 512);
  countRequest(thread.of(3), READ, 0.02, -5);
  countRequest(thread.of(3), WRITE, 1, 1 << 20);
  countRequest(thread.of(4), FLUSH, 2, 0);
  countRequest(main.of(4), DISCARD, 3, 2 ** 40);
  const three = readStats(fd, 3);
  t.match(three.read, { requests: 3, bytes: 4608, errors: 1, latencyUs: { max: 20 } });
  t.match(three.write, { requests: 1, bytes: 1 << 20, errors: 0, latencyUs: { max: 1000 } });
  t.same(three.flush, NONE);
  t.match(readStats(fd, 4), { read: NONE, flush: { requests: 1 }, discard: { requests: 1, bytes: 2 ** 40 } });
  resetStats(fd, 3);
  t.same(readStats(fd, 3).read, NONE);
  t.match(readStats(fd, 4), { flush: { requests: 1 } }, 'the neighbour is left alone');
  countRequest(main.of(3), READ, 0.01, 1);
  t.match(readStats(fd, 3).read, { requests: 1 }, 'the page that was mapped before still counts');
});

t.test('all counters at once are the same as those of each vbd', async (t) => {
  const own = createStats();
  t.teardown(() => closeSync(own));
  t.same(new CountersReader(own).of(7).read, { requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] });
  // neighbours, pages that follow each other across vbds, and the last place
  for (const index of [0, 1, 2, 700, MAX_FILES - 1]) {
    for (const area of [MAIN_AREA, areaOfThread(0), areaOfThread(30)]) {
      const page = mapCounters(own, index, area);
      countRequest(page, READ, 0.009, 512);
      countRequest(page, WRITE, area + index, -5);
    }
  }
  const all = new CountersReader(own);
  t.equal(all.of(0).read.requests, 0, 'nobody has looked');
  all.findPages();
  for (const index of [0, 1, 2, 700, MAX_FILES - 1]) {
    const { read, write, flush } = all.of(index);
    t.same(read, { requests: 3, bytes: 1536, errors: 0, maxUs: 9, histogram: [[8, 10, 3]] });
    t.match(write, { requests: 3, errors: 3, maxUs: readStats(own, index).write.latencyUs.max });
    t.equal(
      write.histogram.reduce((sum, [, , requests]) => sum + requests, 0),
      3,
    );
    t.equal(flush.requests, 0);
  }
  t.same(all.of(3).read.requests, 0, 'a place without requests');
  resetStats(own, 1);
  const other = new CountersReader(own);
  other.findPages();
  t.same(other.of(1).read.requests, 0);
});

/** Asks as a watcher does. */
function asker(reader: CountersReader) {
  return (index: number) => {
    reader.findPages();
    return reader.of(index);
  };
}

t.test('who asks again gets what has changed', async (t) => {
  const own = createStats();
  t.teardown(() => closeSync(own));
  const reader = new CountersReader(own);
  const ask = asker(reader);
  const [first, second] = [mapCounters(own, 9, MAIN_AREA), mapCounters(own, 9, areaOfThread(4))];
  countRequest(first, READ, 0.009, 512);
  const before = ask(9);
  t.match(before, { read: { requests: 1, bytes: 512 } });
  t.equal(ask(9), before, 'nothing was counted: the same object');
  countRequest(first, WRITE, 0.009, 4096);
  const after = ask(9);
  t.match(after.write, { requests: 1, bytes: 4096 });
  t.equal(after.read, before.read, 'a kind of which nothing was counted');
  countRequest(second, READ, 0.5, 512);
  t.match(ask(9).read, { requests: 2, maxUs: 500 }, 'a page that is new');
  // a count that is half done when somebody asks
  first[1] = (first[1] as number) + 100;
  t.match(ask(9).read, { requests: 2, bytes: 1124 });
});

t.test('a reset place begins at nothing, wherever its pages are then', async (t) => {
  const own = createStats();
  t.teardown(() => closeSync(own));
  const reader = new CountersReader(own);
  const ask = asker(reader);
  countRequest(mapCounters(own, 2, MAIN_AREA), READ, 1, 512);
  countRequest(mapCounters(own, 3, MAIN_AREA), READ, 1, 512);
  t.equal(ask(2).read.requests, 1);
  reader.reset(2);
  t.equal(ask(2).read.requests, 0);
  t.equal(ask(3).read.requests, 1, 'the neighbour is left alone');
  reader.reset(3);
  // as many pages as before, elsewhere
  countRequest(mapCounters(own, 2, areaOfThread(7)), READ, 1, 512);
  countRequest(mapCounters(own, 2, areaOfThread(8)), WRITE, 1, 512);
  t.match(ask(2), { read: { requests: 1 }, write: { requests: 1 } });
  t.equal(ask(3).read.requests, 0);
});

t.test('percentiles are right to an eighth, and never above the longest', async (t) => {
  const durations = fc.array(fc.double({ min: 0.001, max: 60_000, noNaN: true }), { minLength: 1, maxLength: 200 });
  const page = new CounterPages(fd, MAIN_AREA).of(5);
  fc.assert(
    fc.property(durations, (all) => {
      resetStats(fd, 5);
      for (const ms of all) countRequest(page, READ, ms, 0);
      const sorted = all.map((ms) => ms * 1000).sort((a, b) => a - b);
      const { p50, p99, max } = readStats(fd, 5).read.latencyUs;
      for (const [share, found] of [
        [0.5, p50],
        [0.99, p99],
      ] as const) {
        const exact = sorted[Math.ceil(share * sorted.length) - 1] as number;
        t.ok(found !== null && Math.abs(found - exact) <= exact / 4 + 0.3, `p${share}: ${found}, in truth ${exact}`);
        t.ok((found ?? 0) <= (max ?? 0));
      }
    }),
  );
});

t.test('buckets follow each other without gaps', async (t) => {
  for (let bucket = 1; bucket < 120; bucket++) t.ok(bucketStartUs(bucket) > bucketStartUs(bucket - 1));
  t.same([4, 5, 8, 9, 12].map(bucketStartUs), [1, 1.25, 2, 2.5, 4]);
  const page = new CounterPages(fd, MAIN_AREA).of(6);
  for (const ms of [0, 1e12, Number.POSITIVE_INFINITY]) countRequest(page, READ, ms, 0);
  t.match(readStats(fd, 6).read, { requests: 3 }, 'whatever the clock says');
});
