import t from 'tap';
import { until } from '../../system/until.js';

t.test('yes at once, or later', async (t) => {
  let asked = 0;
  t.equal(await until(() => true, { timeoutMs: 0, everyMs: 1 }), true);
  t.equal(await until(() => ++asked === 3, { timeoutMs: 10_000, everyMs: 1 }), true);
  t.equal(asked, 3);
  t.equal(await until(async () => ++asked === 5, { timeoutMs: 10_000, everyMs: 1 }), true);
});

t.test('no, when the time is over, and not before', async (t) => {
  const begun = performance.now();
  t.equal(await until(() => false, { timeoutMs: 50, everyMs: 10 }), false);
  const tookMs = performance.now() - begun;
  t.ok(tookMs >= 50 && tookMs < 5_000, `${tookMs} ms`);
});

t.test('what comes with the end of the time is seen', async (t) => {
  const begun = performance.now();
  t.equal(await until(() => performance.now() - begun >= 30, { timeoutMs: 30, everyMs: 20 }), true);
});

t.test('what the check throws', async (t) => {
  await t.rejects(
    until(
      () => {
        throw new RangeError('broken');
      },
      { timeoutMs: 1_000, everyMs: 1 },
    ),
    RangeError,
  );
});
