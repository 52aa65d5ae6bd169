/**
 * The calls of processes on files, in order, recorded by strace. strace stops each system call at its begin and its end,
 * so in the trace a call that another one waited for ends before that one.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import type { Test } from 'tap';
import { collect, eventually } from '../e2e/command.js';
import type { Bench } from '../e2e/fixtures.js';

/** The begin or the end of a system call; of its end everything is known. */
export interface TraceEvent {
  readonly phase: 'begin' | 'end';
  readonly pid: number;
  readonly call: string;
  /** where its first descriptor leads */
  readonly path: string;
  /** all between the parentheses, as strace prints it */
  readonly words: string;
  /** null at the begin */
  readonly result: number | null;
}

/** strace's words to follow processes, before those of a command that it shall start. */
export function traceWords(output: string, pids: readonly number[], calls: readonly string[]): string[] {
  // -I 1: it can be ended by a signal though it has started a program
  const words = ['-I', '1', '-f', '-q', '-y', '-s', '8', '-e', `trace=${calls.join()}`, '-e', 'signal=none'];
  return ['strace', ...words, '-o', output, ...pids.flatMap((pid) => ['-p', String(pid)])];
}

/** Follows processes until `end` is called, or they end. */
export class Trace {
  readonly #child: ChildProcess;
  readonly #end: Promise<unknown>;
  readonly #output: string;

  private constructor(child: ChildProcess, output: string) {
    this.#child = child;
    this.#end = collect(child);
    this.#output = output;
  }

  /** Resolves when each of the processes is followed. */
  static async start(t: Test, bench: Bench, pids: readonly number[], calls: readonly string[]): Promise<Trace> {
    const output = bench.path(`trace-${pids[0]}`);
    const [program = '', ...words] = traceWords(output, pids, calls);
    const trace = new Trace(bench.startProgram(program, words), output);
    t.teardown(() => trace.end());
    await eventually('strace follows', 10_000, async () => (await Promise.all(pids.map(isTraced))).every(Boolean));
    return trace;
  }

  async end(): Promise<TraceEvent[]> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      await once(this.#child, 'exit');
    }
    await this.#end;
    return readTrace(this.#output);
  }
}

/** Whether all threads of a process are followed by somebody. */
export async function isTraced(pid: number): Promise<boolean> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const statuses = threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/status`, 'utf8').catch(() => ''));
  return (await Promise.all(statuses)).every((status) => !/^TracerPid:\t0$/m.test(status));
}

/** The events of a trace that is whole. */
export async function readTrace(output: string): Promise<TraceEvent[]> {
  if (!existsSync(output)) return [];
  const begun = new Map<string, string>();
  const events: TraceEvent[] = [];
  for (const line of (await readFile(output, 'utf8')).split('\n')) {
    const [, pid = '', rest = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const unfinished = /^(\w+)\((.*) <unfinished \.\.\.>$/.exec(rest);
    if (unfinished) {
      begun.set(pid, `${unfinished[1]}(${unfinished[2]}`);
      events.push(event({ phase: 'begin', pid, call: unfinished[1], words: unfinished[2] }));
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    const whole = /^(\w+)\((.*)\) += (-?\d+)/.exec(resumed ? `${begun.get(pid)}${resumed[1]}` : rest);
    if (whole === null) continue;
    const [, call, words, result] = whole;
    if (!resumed) events.push(event({ phase: 'begin', pid, call, words }));
    events.push(event({ phase: 'end', pid, call, words, result: Number(result) }));
  }
  return events;
}

/** What a line of strace has told. */
interface Told {
  readonly phase: 'begin' | 'end';
  readonly pid: string;
  readonly call: string | undefined;
  readonly words: string | undefined;
  /** missing at the begin */
  readonly result?: number;
}

function event({ phase, pid, call = '', words = '', result }: Told): TraceEvent {
  return { phase, pid: Number(pid), call, path: /^\d+<([^>]*)>/.exec(words)?.[1] ?? '', words, result: result ?? null };
}
