import t from 'tap';
import { drawBar, withProgress } from '../../cli/progress-bar.js';
import { atIntervals, inPercent } from '../../mount/control/progress.js';

t.test('the bar', (t) => {
  t.equal(drawBar('copying', 0, 100), `copying [${'-'.repeat(32)}]   0%  0 of 100`);
  t.equal(drawBar('copying', 3 * 2 ** 30, 4 * 2 ** 30), `copying [${'#'.repeat(24)}${'-'.repeat(8)}]  75%  3G of 4G`);
  t.equal(drawBar('saving', 0, 0), `saving [${'#'.repeat(32)}] 100%  0 of 0`);
  t.end();
});

t.test('no terminal, no bar', async (t) => {
  t.equal(await withProgress('copying', {}, async (progress) => progress), undefined);
});

t.test('reports come at intervals, the last always', (t) => {
  let now = 0;
  const told: number[] = [];
  const report = atIntervals(
    (done) => told.push(done),
    () => now,
  );
  for (let done = 0; done <= 50; done++, now += 10) report(done, 50);
  t.same(told, [0, 10, 20, 30, 40, 50]);
  t.end();
});

t.test('the log gets a line for each tenth, after a second', (t) => {
  let now = 0;
  const told: number[] = [];
  const report = inPercent(
    (percent) => told.push(percent),
    () => now,
  );
  for (let done = 0; done <= 1000; done++, now += 3) report(done, 1000);
  t.same(told, [33, 40, 50, 60, 70, 80, 90, 100]);
  t.end();
});
