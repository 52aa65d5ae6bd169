/** The lock on ranges: what overlaps comes one after the other, in the order of the calls; what does not waits for nothing. */
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import t from 'tap';
import { RangeLock } from '../../../drivers/map/range-lock.js';

t.test('overlapping work is done in the order of the calls, other work at the same time', async () => {
  const range = fc.record({ first: fc.nat(20), count: fc.integer({ min: 1, max: 8 }), ms: fc.nat(2) });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 2, maxLength: 20 }), async (ranges) => {
      const lock = new RangeLock();
      const running = new Set<number>();
      const begun: number[] = [];
      const overlaps = (a: number, b: number): boolean => {
        const [one, other] = [ranges[a], ranges[b]] as { first: number; count: number }[];
        if (one === undefined || other === undefined) throw new Error('no such range');
        return one.first < other.first + other.count && other.first < one.first + one.count;
      };
      const works = ranges.map(({ first, count, ms }, i) =>
        lock.run(first, count, async () => {
          for (const other of running) if (overlaps(i, other)) throw new Error(`${i} and ${other} overlap`);
          running.add(i);
          begun.push(i);
          await delay(ms);
          running.delete(i);
          return i;
        }),
      );
      const results = await Promise.all(works);
      if (results.some((result, i) => result !== i)) throw new Error('a result was lost');
      for (const [at, i] of begun.entries()) {
        for (const later of begun.slice(0, at)) {
          if (later > i && overlaps(later, i)) throw new Error(`${later} came before ${i}`);
        }
      }
    }),
    { numRuns: 60 },
  );
});

t.test('work that fails lets the next go on', async (t) => {
  const lock = new RangeLock();
  const failing = lock.run(0, 4, () => Promise.reject(new Error('failed')));
  const next = lock.run(3, 1, async () => 'done');
  await t.rejects(failing, { message: 'failed' });
  t.equal(await next, 'done');
});

t.test('ranges that only touch do not wait for each other', async (t) => {
  const lock = new RangeLock();
  let release = (): void => {};
  const held = lock.run(0, 4, () => new Promise<void>((resolve) => (release = resolve)));
  t.equal(await lock.run(4, 4, async () => 'done'), 'done');
  release();
  await held;
});

t.test('several ranges are locked in one step, so calls with the same ranges do not wait for each other', async (t) => {
  const lock = new RangeLock();
  const order: string[] = [];
  const work = (name: string) => async (): Promise<void> => {
    order.push(`${name} begins`);
    await delay(5);
    order.push(`${name} ends`);
  };
  const [low, high] = [
    { first: 0, count: 4 },
    { first: 10, count: 4 },
  ];
  await Promise.all([
    lock.runAll([low, high], work('a')),
    lock.run(2, 3, work('b')),
    lock.runAll([high, low], work('c')),
    lock.run(6, 2, work('d')),
  ]);
  t.same(order.slice(0, 2).sort(), ['a begins', 'd begins'], 'd is between the ranges of a, and b waits for a');
  const own = order.filter((line) => !line.startsWith('d'));
  t.same(own, ['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  t.equal(lock.isFree(0, 20), true);
});
