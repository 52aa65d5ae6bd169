/**
 * The benchmark's own sums: medians, ratios, orders, what is read from fio and /proc, the choice of jobs, the verdicts
 * and the plots. And one short run over the image itself, which must leave nothing behind.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import { drawChart } from '../../scripts/lib/bench/chart.js';
import { compareRecords, lowestAllowed, notCompared } from '../../scripts/lib/bench/check.js';
import { isInstalled } from '../../scripts/lib/bench/command.js';
import { fioArguments, parseFio } from '../../scripts/lib/bench/fio.js';
import { formatRatio, formatValue } from '../../scripts/lib/bench/format.js';
import { ALL_JOBS, type FioJob, JOB_LISTS, selectJobs } from '../../scripts/lib/bench/jobs.js';
import { parseWords, settingsOf, USAGE } from '../../scripts/lib/bench/options.js';
import { chartsOf, familyOf } from '../../scripts/lib/bench/plots.js';
import { parseCpuSeconds, parsePssBytes } from '../../scripts/lib/bench/processes.js';
import { type BenchRecord, type Reading, readRecord, resultsOf, writeRecord } from '../../scripts/lib/bench/record.js';
import { isWithinLimits } from '../../scripts/lib/bench/startup.js';
import { median, ratioSpread, visitingOrder } from '../../scripts/lib/bench/statistics.js';
import { detailTables, summaryTable } from '../../scripts/lib/bench/table.js';
import { selectTargets } from '../../scripts/lib/bench/targets/all.js';
import { Undo } from '../../scripts/lib/bench/undo.js';
import { whyNot } from '../e2e/fixtures.js';

const RUN = resolve(import.meta.dirname, '../../scripts/lib/bench/run.js');

const reading = (value: number): Reading => ({
  value,
  latencyUs: { p50: 10, p99: 20, p999: 30 },
  cpuUsPerRequest: 1.5,
});

/** A record of one job whose rounds gave these values, by target. */
function recordOf(values: Record<string, (number | null)[]>, job = 'randread-4k-qd32'): BenchRecord {
  const readings = new Map(
    Object.entries(values).map(([target, rounds]) => [target, rounds.map((v) => (v === null ? null : reading(v)))]),
  );
  const results = resultsOf({ name: job, unit: 'IOPS', better: 'more' }, readings, 'qemu');
  return {
    version: 1,
    date: '2026-01-01T00:00:00Z',
    machine: {},
    baseline: 'qemu',
    rounds: 3,
    seconds: 1,
    engine: 'libaio',
    sizeBytes: 1 << 28,
    coldSizeBytes: 1 << 28,
    results,
    skipped: [],
    failures: [],
  };
}

t.test('a median has as many values below it as above it', async (t) => {
  t.equal(median([]), null);
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 3, 2]), 2.5);
  fc.assert(
    fc.property(fc.array(fc.double({ noNaN: true, min: -1e9, max: 1e9 }), { minLength: 1 }), (values) => {
      const middle = median(values) ?? Number.NaN;
      const below = values.filter((value) => value < middle).length;
      const above = values.filter((value) => value > middle).length;
      return below <= values.length / 2 && above <= values.length / 2;
    }),
  );
});

t.test('ratios are of the same round, so a machine that drifts does not change them', async (t) => {
  t.same(ratioSpread([200, 20, 2], [100, 10, 1], 'more'), { median: 2, min: 2, max: 2 });
  t.same(ratioSpread([1, 2, 8], [2, 2, 2], 'less'), { median: 1, min: 0.25, max: 2 }, 'fewer seconds are better');
  t.same(ratioSpread([null, 30, 20], [10, 10, null], 'more'), { median: 3, min: 3, max: 3 }, 'failed rounds are out');
  t.equal(ratioSpread([1], [null], 'more'), null);
  t.equal(ratioSpread([1], [0], 'more'), null);
});

t.test('every round visits every target once, and begins with another one', async (t) => {
  const targets = ['a', 'b', 'c'];
  const orders = [0, 1, 2, 3, 4, 5].map((round) => visitingOrder(targets, round));
  for (const order of orders) t.same([...order].sort(), targets);
  for (const place of [0, 2]) t.same([...new Set(orders.map((order) => order[place]))].sort(), targets);
  t.not(orders.map(String).filter((order) => order === 'a,b,c').length, orders.length);
  t.same(visitingOrder([], 3), []);
});

t.test('the name of a job tells what it does, and no two have the same', async (t) => {
  t.equal(new Set(ALL_JOBS.map(({ name }) => name)).size, ALL_JOBS.length);
  const [job] = selectJobs(['randmix-64k-qd4-j4-buffered-cold']);
  t.match(job, { rw: 'randrw', blockBytes: 65536, depth: 4, processes: 4, direct: false, cold: true, fsync: false });
  t.match(selectJobs(['write-1m-qd1-fsync'])[0], { rw: 'write', blockBytes: 1 << 20, fsync: true, unit: 'MB/s' });
  for (const list of Object.keys(JOB_LISTS)) t.ok(selectJobs([list]).length > 0, list);
  t.equal(selectJobs(['all']).length, ALL_JOBS.length);
});

t.test('words choose jobs and targets; a word that matches nothing is refused', async (t) => {
  const names = selectJobs(['attach', 'randread-4k-qd*', 'randread-4k-qd1']).map(({ name }) => name);
  t.ok(names.includes('randread-4k-qd32-cold'));
  t.equal(names.filter((name) => name === 'randread-4k-qd1').length, 1, 'each once');
  t.equal(names.at(-1), 'attach', 'in one order, whatever the words');
  t.throws(() => selectJobs(['randread-5k']), { code: 'USAGE' });
  t.throws(() => selectJobs(['']), { code: 'USAGE' });
  t.same(
    selectTargets(['qemu', 'r*w']).map(({ name }) => name),
    ['raw', 'qemu'],
  );
  t.throws(() => selectTargets(['quemu']), { code: 'USAGE', hint: /raw, loop, qemu/ });
});

t.test('options', async (t) => {
  const settings = settingsOf(parseWords(['--quick']), null);
  t.same(
    settings.targets.map(({ name }) => name),
    ['qemu', 'fusetap-ram'],
  );
  t.match(settings, { rounds: 5, seconds: 2, baseline: 'qemu', quick: true, imageDir: '/dev/shm' });
  for (const words of [
    ['--rounds', '0'],
    ['--seconds', '0.5'],
    ['--size', '1M'],
    ['--size', '9x'],
    ['--tolerance', '2'],
    ['--baseline', 'no'],
  ]) {
    t.throws(() => settingsOf(parseWords(words), null), { code: 'USAGE' }, words.join(' '));
  }
  t.throws(() => parseWords(['--nonsense']), { code: 'USAGE' });
  const recorded = recordOf({ qemu: [1], 'fusetap-ram': [2] });
  const checked = settingsOf(parseWords(['--check', 'x', '--rounds', '2']), recorded);
  t.match(checked, { rounds: 2, seconds: 1, sizeBytes: 1 << 28 }, 'what is left open is as recorded');
  t.same(
    checked.jobs.map(({ name }) => name),
    ['randread-4k-qd32'],
  );
});

t.test('the help names every option', async (t) => {
  const source = await readFile(resolve(import.meta.dirname, '../../scripts/lib/bench/options.js'), 'utf8');
  const names = [...source.matchAll(/^ {4}'?([a-z-]+)'?: \{ type: '/gm)].map(([, name]) => `--${name}`);
  t.ok(names.length > 10);
  for (const name of names) t.match(USAGE, new RegExp(`^  ${name}\\b`, 'm'));
});

t.test("fio's arguments", async (t) => {
  const arguments_ = (name: string, path = '/x'): string[] => {
    return fioArguments(selectJobs([name])[0] as FioJob, path, { seconds: 3, engine: 'psync' });
  };
  const warm = arguments_('randmix-4k-qd32-j4');
  for (const word of ['--rw=randrw', '--rwmixread=70', '--iodepth=32', '--numjobs=4', '--size=25%', '--time_based']) {
    t.ok(warm.includes(word), word);
  }
  t.notOk(arguments_('randread-4k-qd32-cold').includes('--time_based'), 'a cold block is read once');
  t.ok(arguments_('randread-4k-qd1', '/a:b').includes('--filename=/a\\:b'));
  t.ok(arguments_('randwrite-4k-qd1-fsync').includes('--fsync=1'));
});

t.test("fio's JSON: reads and writes together, warnings before it skipped, errors refused", async (t) => {
  const direction = (requests: number) => ({
    total_ios: requests,
    iops: requests / 2,
    bw_bytes: requests * 2048,
    lat_ns: { percentile: { '50.000000': 1500, '99.000000': 9000, '99.900000': 20000 } },
  });
  const idle = { total_ios: 0, iops: 0, bw_bytes: 0, lat_ns: {} };
  const output = (error: number, read: object, write: object): string =>
    `fio: a {warning}\n${JSON.stringify({ jobs: [{ error, read, write }] }, null, 2)}`;
  t.same(parseFio(output(0, direction(70), direction(30))), {
    requests: 100,
    iops: 50,
    bytesPerSecond: 204800,
    latencyUs: { p50: 1.5, p99: 9, p999: 20 },
  });
  t.equal(parseFio(output(0, idle, direction(8))).latencyUs.p99, 9);
  t.throws(() => parseFio(output(5, direction(1), idle)), { code: 'FAILED', message: /error 5/ });
  t.throws(() => parseFio(output(0, idle, idle)), { code: 'FAILED' });
  t.throws(() => parseFio('fio: engine not loadable'), { code: 'FAILED', message: /engine not loadable/ });
});

t.test('CPU time and memory of a process', async (t) => {
  t.equal(parseCpuSeconds('12 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 250 50 7 8 20 0 3'), 3);
  t.ok(parseCpuSeconds(await readFile('/proc/self/stat', 'utf8')) > 0);
  t.equal(parsePssBytes('55-7f ---p 0 0:0 0 [rollup]\nRss:   99 kB\nPss:       12 kB\nPss_Dirty: 3 kB\n'), 12288);
  t.throws(() => parsePssBytes(''), RangeError);
});

t.test('numbers as people read them', async (t) => {
  t.equal(formatValue(612_345, 'IOPS'), '612k');
  t.equal(formatValue(43_120, 'IOPS'), '43.1k');
  t.equal(formatValue(950, 'IOPS'), '950');
  t.equal(formatValue(9412.3, 'MB/s'), '9412');
  t.equal(formatValue(0.287, 's'), '0.29');
  t.same([0.482, 5.26, 14.2].map(formatRatio), ['0.48×', '5.3×', '14×']);
});

t.test('tables: every target with its median and ratio, wide ones in pieces', async (t) => {
  const record = recordOf({ qemu: [100, 100, 100], 'fusetap-ram': [500, 600, 400], raw: [null, null, null] });
  const [head = '', row = ''] = summaryTable(record).split('\n');
  t.match(head, /qemu +fusetap-ram +raw$/);
  t.match(row, /^randread-4k-qd32 \(IOPS\) +100 +500 5\.0× +failed$/);
  t.match(detailTables(record), /fusetap-ram +500 +5\.0× +4\.0×–6\.0× +10\.0 +20\.0 +30\.0 +1\.50/);
  const many = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`target-number-${i}`, [1, 2, 3]]));
  const wide = summaryTable(recordOf(many));
  for (const name of Object.keys(many)) t.ok(wide.includes(name), name);
  t.ok(wide.split('\n').every((line) => line.length <= 120));
});

t.test('the check: noise passes, a slower ratio does not, whatever the machine', async (t) => {
  t.equal(lowestAllowed({ median: 4, min: 3.9, max: 4.1 }, 0.25), 3, 'the tolerance');
  t.equal(lowestAllowed({ median: 4, min: 2.5, max: 4.1 }, 0.25), 2.5, 'the recorded spread, where it is larger');
  t.equal(lowestAllowed({ median: 4, min: 0.1, max: 4.1 }, 0.25), 2, 'but not without end');
  const recorded = recordOf({ qemu: [100, 100, 100], 'fusetap-ram': [500, 490, 510] });
  const isSlower = (now: BenchRecord): (boolean | undefined)[] =>
    compareRecords(recorded, now, 0.15).map((comparison) => comparison.isSlower);
  t.same(isSlower(recordOf({ qemu: [10, 10, 10], 'fusetap-ram': [50, 46, 44] })), [false], 'a slower machine');
  t.same(isSlower(recordOf({ qemu: [100, 100, 100], 'fusetap-ram': [400, 410, 420] })), [true]);
  t.same(isSlower(recordOf({ qemu: [200, 200, 200], 'fusetap-ram': [500, 500, 500] })), [true], 'a faster baseline');
  t.same(isSlower(recordOf({ qemu: [100, 100, 100], 'fusetap-ram': [5, 500, 500] })), [false], 'one bad round');
  const lacking = recordOf({ qemu: [100] });
  const [jobs, targets] = [['randread-4k-qd32'], ['qemu', 'fusetap-ram']];
  const comparisons = compareRecords(recorded, lacking, 0.15);
  t.same(notCompared(recorded, comparisons, { jobs, targets }), ['randread-4k-qd32 on fusetap-ram']);
  t.same(notCompared(recorded, comparisons, { jobs, targets: ['qemu'] }), [], 'nobody asked for it');
  t.same(notCompared(recorded, comparisons, { jobs: ['untar'], targets }), []);
});

t.test('the record of docs/performance.md can be compared with', async (t) => {
  const record = await readRecord(resolve(import.meta.dirname, '../../../docs/performance/two-cores.json'));
  t.ok(record.rounds >= 5);
  const names = ALL_JOBS.map(({ name }) => name);
  t.same(
    [...new Set(record.results.map(({ job }) => job))].filter((job) => !names.includes(job)),
    [],
  );
});

t.test('a record comes back as it was written; anything else is refused', async (t) => {
  const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const file = join(directory, 'record.json');
  const record = recordOf({ qemu: [100, null], 'fusetap-ram': [500, 600] });
  await writeRecord(file, record);
  t.same(await readRecord(file), record);
  for (const text of ['', '[]', JSON.stringify({ ...record, version: 2 })]) {
    await writeFile(file, text);
    await t.rejects(readRecord(file), { code: 'USAGE' });
  }
  await t.rejects(readRecord(join(directory, 'none')), { code: 'NOT_FOUND' });
});

t.test('plots: depths of a family side by side, bars as long as their medians', async (t) => {
  t.equal(familyOf({ job: 'randread-4k-qd32-j4-cold', unit: 'IOPS' }), 'randread-4k-j4-cold');
  t.equal(familyOf({ job: 'attach', unit: 'ms' }), familyOf({ job: 'detach', unit: 'ms' }));
  const results = ['randread-4k-qd1', 'randread-4k-qd32'].flatMap(
    (job) => recordOf({ qemu: [100, 100], raw: [400, 400], loop: [null, null] }, job).results,
  );
  const charts = chartsOf({ results });
  t.same(
    charts.map(({ name }) => name),
    ['randread-4k', 'randread-4k-p99', 'randread-4k-cpu'],
  );
  const [chart = { title: '', groups: [] }] = charts;
  const svg = drawChart(chart);
  t.match(svg, /^<svg xmlns=.*<\/svg>\n$/s);
  const widths = [...svg.matchAll(/<rect x="[\d.]+" y="[\d.]+" width="([\d.]+)"/g)].map(([, width]) => Number(width));
  t.equal(widths.length, 4, 'no bar for what failed');
  t.ok(Math.abs((widths[1] ?? 0) / (widths[0] ?? 1) - 4) < 0.05);
  t.match(svg, /queue depth 1<.*queue depth 32</s);
  t.match(drawChart({ title: 'a < b & "c"', groups: [] }), /a &lt; b &amp; &quot;c&quot;/);
});

t.test('undo: in reverse, each once, and one failure does not stop the rest', async (t) => {
  const done: string[] = [];
  const undo = new Undo();
  const step = (name: string) => async (): Promise<void> => void done.push(name);
  undo.defer(step('first'));
  const inner = undo.nested();
  inner.defer(step('inner'));
  undo.defer(async () => {
    throw new Error('stuck');
  });
  undo.defer(step('last'));
  await inner.run();
  t.same(
    (await undo.run()).map(({ message }) => message),
    ['stuck'],
  );
  t.same(done, ['inner', 'last', 'first']);
  t.same(await undo.run(), []);
});

/** Runs the program over the image itself, with all its files in a directory of the test's. */
async function runBench(t: Test, words: string[], interruptAfterMs?: number) {
  const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const environment = { ...process.env, TMPDIR: directory };
  const fixed = ['--targets', 'raw', '--rounds', '1', '--size', '64M', '--image-dir', directory, '--engine', 'psync'];
  return new Promise<{ status: number | null; stdout: string; left: string[] }>((resolve) => {
    const child = execFile(process.execPath, [RUN, ...fixed, ...words], { env: environment }, async (_, stdout) => {
      resolve({ status: child.exitCode, stdout, left: await readdir(directory) });
    });
    if (interruptAfterMs !== undefined) setTimeout(() => child.kill('SIGINT'), interruptAfterMs);
  });
}

const skip = (await isInstalled('fio')) ? {} : { skip: 'fio is not installed' };

t.test('a run prints a table and leaves nothing behind', skip, async (t) => {
  const jobs = ['--jobs', 'randread-4k-qd1-buffered,attach', '--seconds', '1'];
  const { status, stdout, left } = await runBench(t, jobs);
  t.equal(status, 0);
  t.match(stdout, /randread-4k-qd1-buffered \(IOPS\) +[\d.]+k?\n/);
  t.match(stdout, /skipped: attach on raw: nothing serves it/);
  t.same(left, []);
});

t.test('an interrupted run ends with 130 and leaves nothing behind', skip, async (t) => {
  const { status, left } = await runBench(t, ['--jobs', 'randread-4k-qd1-buffered', '--seconds', '30'], 2_000);
  t.equal(status, 130);
  t.same(left, []);
});

t.test('the cost of commands is printed, and nothing is left', { skip: whyNot() }, async (t) => {
  const { stdout, left } = await runBench(t, ['--startup']);
  // the times depend on the machine, so this test does not judge them
  t.match(stdout, /^node -e 0 +\d+ ms +1\.0×/m);
  for (const name of [
    'fusetap ls',
    'fusetap attach, running bus',
    'fusetap attach, new bus',
    'fusetap run … -- true',
  ]) {
    t.match(stdout, new RegExp(`^${name} +\\d+ ms +[\\d.]+× .*at most \\d+×  (ok|SLOWER)$`, 'm'));
  }
  t.same(left, []);
});

t.test('a command beyond its limit is too slow', async (t) => {
  const ratio = { median: 3.1, min: 2, max: 4 };
  t.equal(isWithinLimits([{ name: 'ls', limit: 3, medianMs: 150, ratio }]), false);
  t.equal(isWithinLimits([{ name: 'ls', limit: 3.1, medianMs: 150, ratio }]), true);
  t.equal(isWithinLimits([{ name: 'nothing', limit: null, medianMs: 50, ratio }]), true);
});
