/** The torture's side of the writer of a bus: sends requests to it, and judges its reports. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Journal } from './journal.js';
import type { Beat, Line, Request, Target } from './messages.js';
import type { Stage } from './stage.js';

const PROGRAM = fileURLToPath(new URL('./writer-main.js', import.meta.url));
/** the limit of an answer: each strand may wait for a disk that does not answer */
const THREADS = 64;
const ASK_LIMIT_MS = 90_000;
/** an I/O that waits longer is an error, whatever the cause */
const STALL_LIMIT_MS = 60_000;

export class Writer {
  readonly #bus: string;
  readonly #stage: Stage;
  readonly #journal: Journal;
  readonly #child: ChildProcess;
  readonly #answers = new Map<number, (error: string | null) => void>();
  readonly #beats = new Map<string, Beat>();
  readonly #stalled = new Set<string>();
  #number = 0;
  #isOver = false;
  /** from now on the bus may end, so errors are ignored */
  isEndExpected = false;
  /** called when an error shows that the bus has ended */
  onBusGone: () => void = () => {};

  constructor(bus: string, journal: Journal, stage: Stage) {
    this.#bus = bus;
    this.#stage = stage;
    this.#journal = journal;
    this.#child = spawn(process.execPath, [PROGRAM], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, UV_THREADPOOL_SIZE: `${THREADS}` },
      cwd: '/',
      detached: true,
      ...stage.person.spawnOptions,
    });
    this.#child.stdin?.on('error', () => {});
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (text) => {
      this.#hear(JSON.parse(text) as Line);
    });
    this.#child.on('exit', () => {
      this.#isOver = true;
      for (const answer of this.#answers.values()) answer('the writer ended');
    });
    // it may wait for a bus that is aborted only later; it ends then
    stage.undo.defer(async () => this.#child.kill('SIGKILL'));
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** @throws Error the writer's error, or that it did not answer */
  async ask(request: Request, limitMs = this.#stage.pace.scaled(ASK_LIMIT_MS)): Promise<void> {
    if (this.#isOver) throw new Error('the writer ended');
    const number = this.#number++;
    const answered = new Promise<string | null>((resolve) => this.#answers.set(number, resolve));
    this.#child.stdin?.write(`${JSON.stringify({ ...request, number })}\n`);
    const timer = new AbortController();
    const late = delay(limitMs, 'late' as const, { signal: timer.signal }).catch(() => 'late' as const);
    const error = await Promise.race([answered, late]).finally(() => timer.abort());
    this.#answers.delete(number);
    if (error === 'late') throw new Error(`the writer did not answer ${request.act} within ${limitMs / 1000} s`);
    if (error !== null) throw new Error(error);
  }

  begin(target: Target): Promise<void> {
    return this.ask({ act: 'begin', target });
  }

  async end(path: string, readsAll: boolean): Promise<void> {
    await this.ask({ act: 'end', path, readsAll });
    const compared = this.#beats.get(path)?.compared ?? 0;
    this.#journal.count('blocks compared', compared);
    this.#beats.delete(path);
  }

  /** Waits until each of the disks has answered an I/O that was not answered before. @throws Error if one does not */
  async progress(paths: readonly string[], limitMs: number): Promise<number> {
    const began = performance.now();
    const before = new Map(paths.map((path) => [path, this.#beats.get(path)?.done ?? 0]));
    for (;;) {
      const standing = paths.filter((path) => (this.#beats.get(path)?.done ?? 0) <= (before.get(path) ?? 0));
      const ms = performance.now() - began;
      if (standing.length === 0) return ms;
      if (ms > limitMs) throw new Error(`no I/O is answered for ${limitMs / 1000} s on ${standing.join(', ')}`);
      await delay(50);
    }
  }

  /** Kills the process, whatever it waits for. */
  async close(): Promise<void> {
    if (this.#isOver) return;
    this.isEndExpected = true;
    this.#child.kill('SIGKILL');
    for (let i = 0; i < 100 && !this.#isOver; i++) await delay(50);
    if (!this.#isOver) throw new Error(`the writer (process ${this.#child.pid}) cannot be killed`);
  }

  #hear(line: Line): void {
    if (line.kind === 'answer') this.#answers.get(line.number)?.(line.error);
    else if (line.kind === 'mismatch') this.#journal.error(this.#bus, `wrong bytes on ${line.path}: ${line.text}`);
    else if (line.kind === 'failed') this.#judge(line);
    else for (const beat of line.disks) this.#note(beat);
  }

  #judge({ path, operation, code, fromMs, untilMs }: Line & { kind: 'failed' }): void {
    if (this.isEndExpected || this.#journal.isIoExcused({ bus: this.#bus, path, code, fromMs, untilMs })) return;
    this.#journal.error(this.#bus, `${operation} on ${path} failed: ${code}`);
    if (code === 'ENOTCONN' || code === 'ECONNABORTED') this.onBusGone();
  }

  #note(beat: Beat): void {
    this.#beats.set(beat.path, beat);
    if (beat.longestMs > 0) this.#journal.timed('an I/O (longest in 0.2 s)', beat.longestMs);
    const waitsMs = beat.waitsSinceMs === null ? 0 : Date.now() - beat.waitsSinceMs;
    const limitMs = this.#stage.pace.scaled(STALL_LIMIT_MS);
    if (waitsMs < limitMs) this.#stalled.delete(beat.path);
    else if (!this.#stalled.has(beat.path) && !this.isEndExpected) {
      this.#stalled.add(beat.path);
      this.#journal.error(this.#bus, `an I/O on ${beat.path} waits for ${limitMs / 1000} s`);
    }
  }
}
