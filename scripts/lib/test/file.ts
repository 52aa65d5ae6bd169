/**
 * Runs one test file as a plain Node program and reads the TAP that it prints.
 *
 * tap's own runner is not used: it adds coverage hooks (NODE_OPTIONS) to every Node process below it. They catch
 * signals, take 90 ms per start, and would also run in the keepers and servers that the tests kill.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Parser, type Result } from 'tap-parser';

export interface Failure {
  /** the names of the enclosing tests and its own, joined by ` > ` */
  name: string;
  /** tap's diagnostics; null if the file as a whole failed */
  diagnostics: Record<string, unknown> | null;
}

export interface Skip {
  name: string;
  reason: string;
}

export interface FileResult {
  passed: number;
  failures: Failure[];
  skips: Skip[];
  durationMs: number;
  /** all output that is not TAP: stderr and other lines of stdout */
  output: string;
}

export interface FileRun {
  /** the compiled file */
  path: string;
  /** the Node that runs it, and every `node` that it starts by its name; default: the one that runs this */
  program?: string;
  /** variables to add to this process's environment */
  environment: Record<string, string>;
  /** the file is ended after this time, unless it extends it with `t.setTimeout` at its top level */
  timeoutMs: number;
  /** called if the file cannot be killed: aborts the buses that its processes may wait for */
  release: () => Promise<void>;
  /** ends the file when it is aborted */
  stop: AbortSignal;
}

/** after its own timeout a test file has this time to report what it was doing */
const GRACE_MS = 2_000;
const KILL_WAIT_MS = 3_000;
/** the most output that is shown for a file */
const OUTPUT_LIMIT = 20_000;

function killGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  } catch {
    // it has ended
  }
}

/**
 * Runs the file; never throws because of the file.
 * @returns null if `stop` ended it
 */
export async function runFile(run: FileRun): Promise<FileResult | null> {
  const started = performance.now();
  const { program = process.execPath } = run;
  const paths = run.program === undefined ? {} : { PATH: `${dirname(program)}:${process.env.PATH}` };
  const child = spawn(program, [run.path], {
    // a process group of its own, so that a timeout ends its children too; tap reports t.setTimeout over ipc
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...process.env, ...paths, TAP_TIMEOUT: String(run.timeoutMs / 1000), TAP_DIAG: '1', ...run.environment },
  });
  const result = collect(child);
  const end = await waitForEnd(child, run);
  await streamsClosed(child);
  if (run.stop.aborted) return null;
  return { ...result(end), durationMs: performance.now() - started };
}

/** Starts to read the child's TAP. The returned function takes the end of the child and gives the result. */
function collect(child: ChildProcess): (end: End) => Omit<FileResult, 'durationMs'> {
  const result = { passed: 0, failures: [] as Failure[], skips: [] as Skip[], output: '' };
  const note = (text: string): void => {
    if (result.output.length < OUTPUT_LIMIT) result.output += text;
  };
  const parser = new Parser();
  parser.on('pass', () => result.passed++);
  parser.on('fail', (point: Result) => result.failures.push({ name: point.fullname, diagnostics: point.diag ?? {} }));
  parser.on('skip', (point: Result) => result.skips.push(skipOf(point, point.skip)));
  parser.on('todo', (point: Result) => result.skips.push(skipOf(point, point.todo)));
  parser.on('extra', note);
  // tests print their seed as a comment; tap's own comments are times and counts
  parser.on('comment', (text: string) => {
    if (!/^\s*# (Subtest: |time=|failed |\{ |test count)/.test(text)) note(text);
  });
  let planned = false;
  parser.on('plan', () => {
    planned = true;
  });
  child.stdout?.setEncoding('utf8').on('data', (text: string) => parser.write(text));
  child.stderr?.setEncoding('utf8').on('data', note);

  return ({ problem: end, status }) => {
    parser.end();
    const { results } = parser;
    // tap-parser treats no output as a skipped file, and tap plans zero tests if the file has none
    if (planned && results?.plan.skipAll && results.plan.skipReason !== 'no tests found') {
      result.skips.push({ name: 'the whole file', reason: results.plan.skipReason });
    }
    const problem = end ?? fileProblem(result, status === 0 && results?.ok === true);
    if (problem !== null) result.failures.push({ name: problem, diagnostics: null });
    return result;
  };
}

function skipOf(point: Result, reason: string | boolean): Skip {
  return { name: point.fullname, reason: typeof reason === 'string' ? reason : '' };
}

/** The failure of a file whose assertions all passed; null if there is none. */
function fileProblem(result: { passed: number; failures: Failure[]; skips: Skip[] }, ok: boolean): string | null {
  if (result.failures.length > 0) return null;
  if (result.passed + result.skips.length === 0) return 'no test ran';
  return ok ? null : 'it ended badly, though no assertion failed (its plan was not kept, or its exit status is 1)';
}

/** How the process of a file ended. */
interface End {
  /** the exit status; null if it was killed or did not start */
  status: number | null;
  /** what is wrong with how it ended; null if nothing is */
  problem: string | null;
}

/** Waits for the child, or kills it when its time is up or `stop` is aborted. */
async function waitForEnd(child: ChildProcess, run: FileRun): Promise<End> {
  const ended = once(child, 'exit').then(
    ([code, signal]) => describeEnd(code as number | null, signal as NodeJS.Signals | null),
    (error: unknown): End => ({ status: null, problem: `could not be started: ${error}` }),
  );
  const late = Symbol();
  const limits = [timeoutOf(child, run.timeoutMs), aborted(run.stop)];
  const first = await Promise.race([ended, ...limits.map((limit) => limit.then(() => late))]);
  if (typeof first !== 'symbol') return first;

  killGroup(child);
  const seconds = Math.round(run.timeoutMs / 1000);
  if (await settles(ended)) return { status: null, problem: `ran longer than ${seconds} s and was killed` };
  await run.release();
  killGroup(child);
  const freed = await settles(ended);
  const outcome = freed ? 'only be killed after its buses were aborted' : 'not be killed';
  return { status: null, problem: `ran longer than ${seconds} s and could ${outcome}` };
}

/** Resolves when the signal is aborted. */
async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}

const settles = (promise: Promise<unknown>): Promise<boolean> =>
  Promise.race([promise.then(() => true), delay(KILL_WAIT_MS, false)]);

function describeEnd(status: number | null, signal: NodeJS.Signals | null): End {
  if (signal !== null) return { status, problem: `was ended by ${signal} (${constants.signals[signal]})` };
  // tap ends with 1 if an assertion failed, which is reported already
  return { status, problem: status === 0 || status === 1 ? null : `ended with exit status ${status}` };
}

/** Resolves when the child's time is up; the child can extend it with `t.setTimeout(ms)`. */
function timeoutOf(child: ChildProcess, timeoutMs: number): Promise<void> {
  return new Promise((resolve) => {
    let timer = setTimeout(resolve, timeoutMs + GRACE_MS);
    child.on('message', (message: { setTimeout?: unknown }) => {
      if (typeof message?.setTimeout !== 'number') return;
      clearTimeout(timer);
      // tap sends 0 at the end of the tests: the process then has the default time to exit
      timer = setTimeout(resolve, (message.setTimeout || timeoutMs) + GRACE_MS);
    });
    child.once('exit', () => clearTimeout(timer));
  });
}

/** Waits for the pipes, but not forever: a process that the file left behind may keep them open. */
async function streamsClosed(child: ChildProcess): Promise<void> {
  const streams = [child.stdout, child.stderr].filter((stream) => stream !== null && !stream.closed);
  await Promise.race([Promise.all(streams.map((stream) => stream && once(stream, 'close'))), delay(500)]);
  for (const stream of streams) stream?.destroy();
  if (child.connected) child.disconnect();
}
