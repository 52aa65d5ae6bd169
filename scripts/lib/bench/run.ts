/**
 * scripts/bench: the same jobs over several targets, interleaved, then medians and ratios.
 *
 * Exit 0; 1 if a job failed, --quick or --startup is slower than allowed, or --check found a lower ratio; 2 for wrong
 * arguments; 130 after a signal. In all cases nothing stays attached, mounted or running.
 */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { EXIT_CODES, FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { type Asked, compareRecords, describeComparison, notCompared } from './check.js';
import { isInstalled, runCommand } from './command.js';
import { Fleet, type Site } from './fleet.js';
import { formatRatio } from './format.js';
import { demandSpace, isInMemory } from './images.js';
import { ALL_JOBS, JOB_LISTS } from './jobs.js';
import { describeMachine } from './machine.js';
import type { Bench } from './measure.js';
import { parseWords, type Settings, settingsOf, USAGE, wholeNumber } from './options.js';
import { writePlots } from './plots.js';
import { type BenchRecord, readRecord, writeRecord } from './record.js';
import { runRounds } from './rounds.js';
import { isWithinLimits, measureStartup, startupTable } from './startup.js';
import { detailTables, summaryTable } from './table.js';
import { ALL_TARGETS } from './targets/all.js';
import { giveQemu } from './targets/qemu.js';
import type { Target } from './targets/target.js';
import { Undo } from './undo.js';

const STARTUP_ROUNDS = 15;

const say = (line: string): void => console.error(line);

/** The targets that the machine has, and a line for each that it does not have. */
async function findTargets(targets: readonly Target[]): Promise<{ found: Target[]; skipped: string[] }> {
  const found: Target[] = [];
  const skipped: string[] = [];
  for (const target of targets) {
    const missing = await target.findMissing();
    if (missing === null) found.push(target);
    else skipped.push(`${target.name}: ${missing}`);
  }
  return { found, skipped };
}

async function list(): Promise<void> {
  console.log('Targets:');
  for (const target of ALL_TARGETS) {
    const missing = await target.findMissing();
    console.log(`  ${target.name.padEnd(24)}${target.description}${missing === null ? '' : ` (not here: ${missing})`}`);
  }
  console.log('\nLists of jobs:');
  for (const [name, jobs] of Object.entries(JOB_LISTS)) console.log(`  ${name.padEnd(11)}${jobs.join(' ')}`);
  console.log(`\nJobs:\n  ${ALL_JOBS.map(({ name }) => name).join(' ')}`);
}

async function makeDirectory(parent: string, undo: Undo): Promise<string> {
  const directory = await mkdtemp(join(parent, 'fusetap-bench-')).catch((error: unknown) => {
    throw toFusetapError(error, `cannot make a directory in ${parent}`, { path: parent });
  });
  // in a child process, and never into a mount: a mount that could not be removed would make this process hang
  undo.defer(() => runCommand('rm', ['-rf', '--one-file-system', directory], { timeoutMs: 60_000 }));
  return directory;
}

/** The directory of images, with room for all of them. @throws FusetapError NO_SPACE */
async function makeSite(parent: string, sizeBytes: number, count: number, undo: Undo): Promise<Site> {
  const directory = await makeDirectory(resolve(parent), undo);
  await demandSpace(directory, count * sizeBytes);
  return { directory, sizeBytes };
}

async function prepare(
  settings: Settings,
  targets: readonly Target[],
  undo: Undo,
  signal: AbortSignal,
): Promise<Bench> {
  const { imageDir, coldDir, sizeBytes, coldSizeBytes, engine, seconds, jobs } = settings;
  const workDirectory = await makeDirectory(tmpdir(), undo);
  // a ram disk is a second copy in memory, beside the images on a tmpfs
  const copies = targets.length + targets.filter(({ holdsImageInMemory }) => holdsImageInMemory).length;
  const warm = await makeSite(imageDir, sizeBytes, copies, undo);
  if (!(await isInMemory(warm.directory))) say(`note: ${imageDir} is not in memory: warm jobs will use its disk`);
  const hasCold = jobs.some((job) => job.kind === 'fio' && job.cold) && !(await isInMemory(coldDir));
  const cold = hasCold ? await makeSite(coldDir, coldSizeBytes, targets.length, undo) : null;
  const fleet = new Fleet(workDirectory, undo);
  return { fleet, warm, cold, workDirectory, undo, fio: { seconds, engine }, signal };
}

/** Measures. The caller must undo. */
async function bench(settings: Settings, undo: Undo, signal: AbortSignal): Promise<BenchRecord> {
  if (!(await isInstalled('fio')))
    throw new FusetapError('UNSUPPORTED', 'fio is not installed', { hint: 'install it' });
  const { found, skipped } = await findTargets(settings.targets);
  for (const line of skipped) say(`skipped: ${line}`);
  const baseline = found.some(({ name }) => name === settings.baseline) ? settings.baseline : found[0]?.name;
  if (baseline === undefined) throw new FusetapError('UNSUPPORTED', 'none of the targets can run here');
  if (baseline !== settings.baseline) say(`note: no ${settings.baseline} among the targets: ratios are to ${baseline}`);
  const { jobs, rounds, seconds, engine, sizeBytes, coldSizeBytes } = settings;
  const prepared = await prepare(settings, found, undo, signal);
  const outcome = await runRounds({ jobs, targets: found, baseline, rounds }, prepared, say);
  return {
    version: 1,
    date: new Date().toISOString(),
    machine: await describeMachine(),
    baseline,
    rounds,
    seconds,
    engine,
    sizeBytes,
    coldSizeBytes,
    results: outcome.results,
    skipped: [...skipped, ...outcome.skipped],
    failures: outcome.failures,
  };
}

async function report(record: BenchRecord, { json, plots }: Settings): Promise<void> {
  const facts = Object.entries(record.machine).map(([name, value]) => `${name}: ${value}`);
  console.log(`${facts.join('; ')}\n`);
  console.log(`median of ${record.rounds} rounds, and how many times as good as ${record.baseline}\n`);
  console.log(summaryTable(record));
  console.log(`\nin full; each ratio compares readings of the same round\n\n${detailTables(record)}`);
  for (const line of record.skipped) console.log(`skipped: ${line}`);
  for (const line of record.failures) console.log(`FAILED: ${line}`);
  if (json !== null) await writeRecord(json, record);
  if (plots !== null) console.log(`\n${(await writePlots(plots, record)).length} plots in ${plots}`);
}

/** Whether fusetap is at least as fast as the baseline in all measurements. */
function passesQuick({ results, baseline }: BenchRecord): boolean {
  const ours = results.filter(({ target }) => target !== baseline);
  console.log('');
  for (const { job, target, ratio } of ours) {
    const told = ratio === null ? 'no ratio' : `${formatRatio(ratio.median)} ${baseline}`;
    console.log(`${ratio !== null && ratio.median >= 1 ? 'ok    ' : 'SLOWER'}  ${job} on ${target}: ${told}`);
  }
  return ours.length > 0 && ours.every(({ ratio }) => ratio !== null && ratio.median >= 1);
}

function passesCheck(recorded: BenchRecord, now: BenchRecord, asked: Asked, tolerance: number): boolean {
  console.log('');
  if (recorded.baseline !== now.baseline) {
    console.log(`not comparable: recorded ratios are to ${recorded.baseline}, these to ${now.baseline}`);
    return false;
  }
  const comparisons = compareRecords(recorded, now, tolerance);
  for (const comparison of comparisons) console.log(describeComparison(comparison));
  for (const name of notCompared(recorded, comparisons, asked)) console.log(`not compared: ${name}`);
  if (comparisons.length === 0) console.log('nothing could be compared');
  return comparisons.length > 0 && !comparisons.some(({ isSlower }) => isSlower);
}

function namesOf({ jobs, targets }: Settings): Asked {
  return { jobs: jobs.map(({ name }) => name), targets: targets.map(({ name }) => name) };
}

/** Runs the benchmark and removes everything that it made, also after a signal. */
async function andUndo<Result>(work: (undo: Undo, signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const undo = new Undo();
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => stop.abort(new FusetapError('FAILED', `ended by ${signal}`)));
  }
  try {
    return await work(undo, stop.signal);
  } catch (error) {
    if (stop.signal.aborted) process.exitCode = 130;
    throw error;
  } finally {
    for (const { message } of await undo.run()) say(`left behind: ${message}`);
  }
}

async function startup(rounds: number): Promise<number> {
  const results = await andUndo((undo) => measureStartup(rounds, undo));
  console.log(`medians of ${rounds} rounds, and how many times as long as doing nothing\n\n${startupTable(results)}`);
  return isWithinLimits(results) ? 0 : 1;
}

async function main(): Promise<number> {
  const words = parseWords(process.argv.slice(2));
  if (words.qemu !== undefined) giveQemu(resolve(words.qemu));
  if (words.help) {
    console.log(USAGE.trimEnd());
    return 0;
  }
  if (words.list) {
    await list();
    return 0;
  }
  if (words.startup) return await startup(wholeNumber('--rounds', words.rounds) ?? STARTUP_ROUNDS);
  const recorded = words.check === undefined ? null : await readRecord(words.check);
  const settings = settingsOf(words, recorded);
  const record = await andUndo((undo, signal) => bench(settings, undo, signal));
  await report(record, settings);
  const verdicts = [
    record.failures.length === 0,
    !settings.quick || passesQuick(record),
    recorded === null || passesCheck(recorded, record, namesOf(settings), settings.tolerance),
  ];
  return verdicts.every(Boolean) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  const { code, message, hint, stack } = toFusetapError(error, error instanceof Error ? error.message : String(error));
  console.error(`bench: ${message}${hint === undefined ? '' : `: ${hint}`}`);
  if (!(error instanceof FusetapError)) console.error(stack);
  process.exitCode ||= EXIT_CODES[code];
}
