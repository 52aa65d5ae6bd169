/**
 * The test runner: runs all compiled test files, or those with one of the patterns in their name, a few at a time.
 *
 *     node dist/scripts/lib/test/run.js [--jobs N] [--timeout SECONDS] [--quick] [--node MAJOR] [PATTERN…]
 *
 * A file whose name ends with .alone.test.ts runs first, while no other does. Without a pattern, the quick part also runs
 * on every other version of Node that is tested (nodes.ts).
 *
 * Each file runs in a directory of its own (TMPDIR, and the runtime directory of buses below it). Mounts, loop devices
 * and processes that it leaves there are failures of that file. SIGINT, SIGTERM and SIGHUP end the run at once: the files
 * that run are killed, what they left is removed, and the report names the files that were not run to their end.
 */
import { execFile } from 'node:child_process';
import { setMaxListeners } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir } from 'node:fs/promises';
import { availableParallelism, constants, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { type FileResult, runFile } from './file.js';
import {
  abortTerritory,
  clearTerritory,
  describeLeftovers,
  findLeftovers,
  MARK,
  removeLeftovers,
  type Territory,
} from './leftovers.js';
import { majorOf, otherNodes, programOf, type TestedNode } from './nodes.js';
import { isQuick } from './quick.js';
import { describeFile, describeInterruption, describeRun, type NamedResult } from './report.js';

const dist = resolve(import.meta.dirname, '../../..');
const LEFTOVER_PATIENCE_MS = 3_000;

interface Settings {
  jobs: number;
  timeoutMs: number;
  /** only the quick part */
  quick: boolean;
  /** only on this version; null: on the Node that runs this */
  node: TestedNode | null;
  patterns: string[];
}

/** A test file to run, and the Node to run it with; null: the one that runs this. */
interface Job {
  readonly file: string;
  readonly node: TestedNode | null;
}

function parseSettings(args: string[]): Settings {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      jobs: { type: 'string', short: 'j' },
      timeout: { type: 'string' },
      quick: { type: 'boolean', default: false },
      node: { type: 'string' },
    },
  });
  return {
    jobs: positiveNumber('--jobs', values.jobs) ?? availableParallelism() + 1,
    timeoutMs: 1000 * (positiveNumber('--timeout', values.timeout) ?? 120),
    quick: values.quick,
    node: values.node === undefined ? null : otherNode(values.node),
    patterns: positionals,
  };
}

function otherNode(major: string): TestedNode {
  const others = otherNodes();
  const node = others.find(({ version }) => majorOf(version) === major);
  if (node !== undefined) return node;
  throw new RangeError(`--node takes ${others.map(({ version }) => majorOf(version)).join(' or ')}, not '${major}'`);
}

function positiveNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0)) throw new RangeError(`${option} takes a number above 0, not '${text}'`);
  return value;
}

/** The compiled test files that have one of the patterns in their source's name; all if no pattern is given. */
async function selectFiles(patterns: string[]): Promise<string[]> {
  const entries = await readdir(join(dist, 'test'), { recursive: true });
  const files = entries.filter((entry) => entry.endsWith('.test.js')).map((entry) => join(dist, 'test', entry));
  // a pattern may come from shell completion: ./test/x.test.ts
  const words = patterns.map((pattern) => pattern.replace(/^\.\//, ''));
  const chosen = files.filter((file) => words.length === 0 || words.some((word) => sourceName(file).includes(word)));
  return chosen.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

const sourceName = (file: string): string => relative(dist, file).replace(/\.js$/, '.ts');

/** What to run: the files on one Node; without a pattern, also the quick part on all others. */
async function planJobs({ patterns, quick, node }: Settings): Promise<Job[]> {
  const all = await selectFiles(patterns);
  const quickOnes = all.filter((file) => isQuick(sourceName(file)));
  const jobs = (quick ? quickOnes : all).map((file) => ({ file, node }));
  if (patterns.length > 0 || node !== null) return jobs;
  return [...jobs, ...otherNodes().flatMap((other) => quickOnes.map((file) => ({ file, node: other })))];
}

/** A failure for each Node that the jobs need and that is not there. */
function missingNodes(jobs: readonly Job[]): NamedResult[] {
  const needed = [...new Set(jobs.flatMap(({ node }) => (node === null ? [] : [node])))];
  return needed
    .filter((node) => !existsSync(programOf(node)))
    .map((node) => {
      const name = `${programOf(node)} does not exist: scripts/setup --nodes fetches it from the npm registry`;
      const failures = [{ name, diagnostics: null }];
      return { name: `Node ${node.version}`, passed: 0, failures, skips: [], durationMs: 0, output: '' };
    });
}

const nameOf = ({ file, node }: Job): string =>
  node === null ? sourceName(file) : `${sourceName(file)} (Node ${node.version})`;

/** What is the same for all files of a run. */
interface Conditions {
  timeoutMs: number;
  /** ends the files when it is aborted */
  stop: AbortSignal;
}

/** @returns null if `stop` ended the file: nothing of it is left then either */
async function runInTerritory(
  { file, node }: Job,
  territory: Territory,
  { timeoutMs, stop }: Conditions,
): Promise<FileResult | null> {
  const { directory, mark } = territory;
  await mkdir(directory);
  // the mode of /tmp: tests also run programs as other users
  await chmod(directory, 0o1777);
  const environment = { TMPDIR: directory, FUSETAP_RUNTIME_DIR: join(directory, 'runtime'), [MARK]: mark };
  const release = (): Promise<void> => abortTerritory(territory);
  const program = node === null ? {} : { program: programOf(node) };
  const result = await runFile({ path: file, ...program, environment, timeoutMs, release, stop });
  if (result === null) {
    await clearTerritory(territory);
    return null;
  }
  const left = await findLeftovers(territory, LEFTOVER_PATIENCE_MS);
  for (const line of describeLeftovers(left)) {
    result.failures.push({ name: `left behind: ${line}`, diagnostics: null });
  }
  await removeLeftovers(territory, left);
  return result;
}

/** The longest files start first, so that no long file runs alone at the end. */
function rank(file: string): number {
  const name = sourceName(file);
  return name.includes('test/survival/') ? 0 : name.includes('test/e2e/') ? 1 : 2;
}

/** Whether the file changes the whole machine while it runs: it would slow or break the others. */
const runsAlone = ({ file }: Job): boolean => file.endsWith('.alone.test.js');

/** Runs `work` on all items in order, `jobs` at a time. */
async function forEachAtOnce<T>(items: readonly T[], jobs: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const lane = async (): Promise<void> => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: jobs }, lane));
}

/**
 * Makes the directory a shared mount: an unmount below it then happens in all mount namespaces at once. Otherwise a
 * namespace that another test made meanwhile would keep the mount in use.
 */
async function shareMounts(directory: string): Promise<void> {
  // a user who may not do this runs no tests that mount
  await promisify(execFile)('mount', ['--bind', '--make-shared', directory, directory]).catch(() => {});
}

async function removeDirectory(directory: string): Promise<void> {
  await promisify(execFile)('umount', ['--lazy', directory]).catch(() => {});
  // in a child process, and never into a mount: a dead bus below would make this process hang
  await promisify(execFile)('rm', ['-rf', '--one-file-system', directory], { timeout: 20_000 }).catch(() => {
    console.log(`note: could not remove ${directory}`);
  });
}

/** The first signal that asks the run to end, from now on. A second one must not interrupt the removal of leftovers. */
function catchSignals(): { stop: AbortSignal; first: () => NodeJS.Signals | undefined } {
  const controller = new AbortController();
  // one for each file
  setMaxListeners(0, controller.signal);
  let first: NodeJS.Signals | undefined;
  const end = (signal: NodeJS.Signals): void => {
    first ??= signal;
    controller.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
  return { stop: controller.signal, first: () => first };
}

async function main(): Promise<number> {
  const settings = parseSettings(process.argv.slice(2));
  const { jobs: lanes, timeoutMs, patterns } = settings;
  const planned = await planJobs(settings);
  const results = missingNodes(planned);
  const jobs = planned.filter(({ node }) => node === null || existsSync(programOf(node)));
  for (const result of results) console.log(describeFile(result));
  if (planned.length === 0) {
    console.log(`no test file has '${patterns.join("' or '")}' in its name\n\n0 passed, 1 failed, 0 skipped`);
    return 2;
  }
  const { stop, first } = catchSignals();
  const directory = await mkdtemp(join(tmpdir(), 'fusetap-test-'));
  await chmod(directory, 0o755);
  await shareMounts(directory);
  const run = async ([index, job]: [number, Job]): Promise<void> => {
    if (stop.aborted) return;
    const territory = { directory: join(directory, String(index)), mark: join(directory, String(index)) };
    const result = await runInTerritory(job, territory, { timeoutMs, stop });
    if (result === null) return;
    results.push({ name: nameOf(job), ...result });
    console.log(describeFile({ name: nameOf(job), ...result }));
  };
  const numbered = [...jobs.entries()];
  await forEachAtOnce(
    numbered.filter(([, job]) => runsAlone(job)),
    1,
    run,
  );
  await forEachAtOnce(
    numbered.filter(([, job]) => !runsAlone(job)),
    lanes,
    run,
  );
  await removeDirectory(directory);
  const signal = first();
  const ended = new Set(results.map(({ name }) => name));
  const missed = jobs.map(nameOf).filter((name) => !ended.has(name));
  const isInterrupted = signal !== undefined && missed.length > 0;
  if (isInterrupted) console.log(describeInterruption(signal, missed));
  console.log(describeRun(results.sort((a, b) => (a.name < b.name ? -1 : 1))));
  if (isInterrupted) return 128 + constants.signals[signal];
  return results.some(({ failures }) => failures.length > 0) ? 1 : 0;
}

process.exit(await main());
