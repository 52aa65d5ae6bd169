import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { within } from '../../system/within.js';

t.test('work that ends in time', async (t) => {
  t.equal(await within(delay(1, 'done'), 60_000, 'late'), 'done');
  await t.rejects(within(Promise.reject(new Error('no')), 60_000, 'late'), { message: 'no' });
});

t.test('work that takes longer', async (t) => {
  let end = (): void => {};
  const work = new Promise<string>((_, reject) => {
    end = () => reject(new Error('late, and nobody looks'));
  });
  t.equal(await within(work, 1, 'late'), 'late');
  end();
  // an unhandled rejection would end the test here
  await delay(10);
});
