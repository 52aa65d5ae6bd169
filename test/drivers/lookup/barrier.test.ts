/** The flushes that writers share: who waits for which, and who learns of a failure. */
import t from 'tap';
import { Barrier } from '../../../drivers/lookup/barrier.js';

/** Flushes that end when the test says so. */
function heldFlushes(): { barrier: Barrier; begun: () => number; end(error?: Error): Promise<void> } {
  const open: { resolve: () => void; reject: (error: Error) => void }[] = [];
  let begun = 0;
  const barrier = new Barrier(() => {
    begun += 1;
    return new Promise((resolve, reject) => open.push({ resolve, reject }));
  });
  return {
    barrier,
    begun: () => begun,
    async end(error) {
      const flush = open.shift();
      if (flush === undefined) throw new Error('no flush is under way');
      if (error === undefined) flush.resolve();
      else flush.reject(error);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

const outcome = (promise: Promise<void>): Promise<string> =>
  promise.then(
    () => 'done',
    (error: Error) => error.message,
  );

t.test('a pass that comes during a flush waits for the next one', async (t) => {
  const { barrier, begun, end } = heldFlushes();
  const first = outcome(barrier.pass());
  const others = [outcome(barrier.pass()), outcome(barrier.pass())];
  t.equal(begun(), 1);
  await end();
  t.equal(await first, 'done');
  t.equal(begun(), 2, 'the others share one');
  await end();
  t.same(await Promise.all(others), ['done', 'done']);
});

t.test('a flush that fails, fails for all who waited: it may have failed for their data', async (t) => {
  const { barrier, begun, end } = heldFlushes();
  const all = [outcome(barrier.pass()), outcome(barrier.pass()), outcome(barrier.pass())];
  await end(new Error('EIO'));
  t.same(await Promise.all(all), ['EIO', 'EIO', 'EIO']);
  const later = outcome(barrier.pass());
  t.equal(begun(), 2);
  await end();
  t.equal(await later, 'done');
});

t.test('a client learns once of a failure that only the driver has seen', async (t) => {
  const { barrier, end } = heldFlushes();
  const inner = outcome(barrier.pass());
  await end(new Error('EIO'));
  t.equal(await inner, 'EIO');
  const first = outcome(barrier.flush());
  await end();
  t.equal(await first, 'EIO', 'although its own flush succeeded');
  const second = outcome(barrier.flush());
  await end();
  t.equal(await second, 'done');
});

t.test('two clients that wait for the same failed flush both get its error', async (t) => {
  const { barrier, end } = heldFlushes();
  const both = [outcome(barrier.flush()), outcome(barrier.flush())];
  await end(new Error('EIO'));
  t.same(await Promise.all(both), ['EIO', 'EIO']);
  const next = outcome(barrier.flush());
  await end();
  t.equal(await next, 'done', 'they know of it');
});

t.test('what was written before a failed flush never counts as durable', async (t) => {
  const { barrier, end } = heldFlushes();
  const before = barrier.now;
  const failing = outcome(barrier.pass());
  const during = barrier.now;
  await end(new Error('EIO'));
  await failing;
  const good = outcome(barrier.pass());
  await end();
  await good;
  t.notOk(barrier.hasPassed(before));
  t.notOk(barrier.hasPassed(during));
  const after = barrier.now;
  t.notOk(barrier.hasPassed(after));
  const last = outcome(barrier.pass());
  await end();
  await last;
  t.ok(barrier.hasPassed(after));
  t.ok(barrier.hasPassed(-1), 'before all flushes');
});
