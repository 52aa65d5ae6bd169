import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { type BarTerminal, drawBar, withProgress } from '../../cli/progress-bar.js';
import { atIntervals, inPercent } from '../../mount/control/progress.js';

const GIB = 2 ** 30;

t.test('the bar', (t) => {
  t.equal(drawBar('copying', { doneBytes: 0, totalBytes: 100 }, 79), `copying [${'-'.repeat(32)}]   0%  0 of 100`);
  t.equal(
    drawBar('copying', { doneBytes: 3 * GIB, totalBytes: 4 * GIB }, 79),
    `copying [${'#'.repeat(24)}${'-'.repeat(8)}]  75%  3G of 4G`,
  );
  t.equal(drawBar('saving', { doneBytes: 0, totalBytes: 0 }, 79), `saving [${'#'.repeat(32)}] 100%  0 of 0`);
  t.end();
});

t.test('a bar fits into any width', (t) => {
  const half = { doneBytes: 1.4 * GIB, totalBytes: 2.9 * GIB };
  for (let room = 0; room <= 100; room++) {
    const text = drawBar('copying', half, room);
    if (text.length > room) t.fail(`${text.length} characters do not fit into ${room}: ${text}`);
    if (room >= 3) t.match(text, /48%$|48% {2}1\.4G of 2\.9G$/, `${room}`);
  }
  t.equal(drawBar('copying', half, 40), 'copying [#####------]  48%  1.4G of 2.9G');
  t.equal(drawBar('copying', half, 30), 'copying [#######--------]  48%');
  t.equal(drawBar('copying', half, 15), 'copying  48%');
  t.equal(drawBar('copying', half, 6), '48%');
  t.end();
});

t.test('no report wraps, also when the terminal is made narrower meanwhile', async (t) => {
  const written: string[] = [];
  const terminal: BarTerminal & { columns: number } = {
    isTTY: true,
    columns: 80,
    write: (text: string) => written.push(text),
  };
  const widths = [80, 60, 40, 20, 8, 120];
  await withProgress(
    'copying',
    {},
    async (progress) => {
      // a bar is shown after a second
      await delay(1_100);
      for (const columns of widths) {
        terminal.columns = columns;
        progress?.(1.4 * GIB, 2.9 * GIB);
      }
    },
    terminal,
  );
  t.equal(written.pop(), '\r\x1b[K', 'the end removes it');
  t.equal(written.length, widths.length);
  for (const [i, text] of written.entries()) {
    const line = text.replace('\r', '').replace('\x1b[K', '');
    t.ok(line.length < (widths[i] ?? 0) && line.length > 0, `${widths[i]}: ${line}`);
  }
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
