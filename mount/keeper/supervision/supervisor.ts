/**
 * Keeps a server under the bus: starts it, replaces it when it dies or stops answering, and gives up when that does no
 * good.
 *
 *      launch ─► loaded ─► vbds replayed ─► (the old one reaped) ─► RESEND ─► started: its threads read
 *        ▲                                                                         │
 *        └────────────────────────────── died ◄────────────────────────────────────┘
 *
 * RESEND goes out once per server, after waitpid has returned the old one, so that no old write can finish after a
 * newer one, and before any thread of the new one reads, so that what the new one has read is not queued again.
 * Clients see a pause. For an upgrade the new process is loaded and knows the vbds before the old one is ended.
 *
 * A server that dies while it works on a request is evidence against that request, or the bus; five of them end it. A server
 * that dies before it has read any, or cannot be started (no descriptor, no memory, no package for a moment), is evidence of
 * nothing: it is tried on for minutes.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../../drivers/errors.js';
import type { Work } from '../../ledger/ledger.js';
import type { BusEvent } from '../../runtime/log-line.js';
import type { CommandResult, Commands } from '../../server/commands.js';
import { type CommandOptions, isServerDeath, type ServerEvents, type ServerProcess } from './server-process.js';
import { SpinWatch } from './spin-watch.js';

/** deaths at work without an answer in between, or with one request under way each time */
const DEATH_LIMIT = 5;
/** a server that lived for longer had nothing to answer: nobody used the bus */
const SOON_MS = 10_000;

/** how soon another server is tried where one could not be started, or died idle, and how seldom in the end */
const FIRST_PAUSE_MS = 10;
const LAST_PAUSE_MS = 5_000;
/** for how long it is tried: descriptors, memory, files of the package may be missing for a while */
export const DEFAULT_START_LIMIT_MS = 600_000;
/** how long a server may load */
const LOAD_LIMIT_MS = 60_000;

const HEARTBEAT_MS = 5_000;
/** how long a server may be silent: a request that waits for a disk does not make it silent, a stopped process does */
export const DEFAULT_SILENCE_LIMIT_MS = 30_000;

export interface ReplayChoice {
  /** a vbd that is well now must not break: the old server serves on */
  readonly strict: boolean;
  /** disks that ended servers are tried again */
  readonly retry: boolean;
}

export interface Supervised {
  launch(events: ServerEvents): ServerProcess;
  /** tells a new server of all vbds, or again of what has changed since */
  replay(server: ServerProcess, choice: ReplayChoice): Promise<void>;
  /** has the kernel queue again what the last server had not answered */
  resend(): void;
  /** why the first death is the end and there is no upgrade; null where a server can be replaced */
  readonly cannotReplace: string | null;
  /** how many requests servers have answered so far */
  answered(): number;
  /** the requests that the server which has just died was working on */
  takeInFlight(): number[];
  /** what the server works on now */
  work(): readonly Work[];
  forgotten(nodeId: number): void;
  /** a thread wants to fill holes of a memory */
  memoryWanted(nodeId: number): void;
  /** a server is in place */
  inPlace(server: ServerProcess): void;
  gaveUp(why: string): void;
  log(event: BusEvent): void;
  readonly silenceLimitMs: number;
  /** for how long a server is tried to be started; what fails meanwhile says nothing of the bus */
  readonly startLimitMs: number;
}

/** commands that may be given again to another server: they have no effect that could be doubled */
const REPEATABLE: ReadonlySet<keyof Commands> = new Set([
  'describe',
  'measure',
  'prepare',
  'attach',
  'partitions',
  'swap',
  'leave',
  'hold',
  'release',
  'poison',
  'detach',
  'ping',
]);

export class Supervisor {
  readonly #bus: Supervised;
  #server: ServerProcess | null = null;
  /** a server that is loading, and may never come into place */
  #next: ServerProcess | null = null;
  /** a server whose death is our own doing */
  #retired: ServerProcess | null = null;
  /** the last of the replacements: one at a time, so that never two servers read */
  #turn: Promise<unknown> = Promise.resolve();
  /** settles when a server is in place again */
  #settled: Promise<void> = Promise.resolve();
  #state: 'running' | 'restarting' | 'over' = 'restarting';
  #restarts: number;
  /** servers in a row that died at work and had answered nothing */
  #barren = 0;
  /** servers in a row that died soon, and had not even read a request; since when */
  #idleDeaths = 0;
  #idleSinceMs = 0;
  #answeredAtStart = 0;
  #inPlaceSinceMs = 0;
  readonly #deathsByRequest = new Map<number, number>();
  readonly #beatMs: number;
  #heartbeat: NodeJS.Timeout | null = null;
  /** beats since the server last said anything */
  #silentBeats = 0;
  readonly #spinWatch = new SpinWatch();

  /** @param restarts how many servers were replaced before */
  constructor(bus: Supervised, restarts = 0) {
    this.#bus = bus;
    this.#restarts = restarts;
    this.#beatMs = Math.min(HEARTBEAT_MS, bus.silenceLimitMs / 3);
  }

  get state(): 'running' | 'restarting' | 'over' {
    return this.#state;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get pid(): number | null {
    return this.#state === 'over' ? null : (this.#server?.pid ?? null);
  }

  /** Starts the first server; resolves when it answers requests. */
  async start(): Promise<void> {
    const server = await this.#load({ strict: false, retry: true });
    await this.#putInPlace(server);
    this.#heartbeat = setInterval(() => void this.#beat(), this.#beatMs);
  }

  /** Gives a command to the server that is in place; what can be repeated survives its death. */
  async request<Op extends keyof Commands>(
    command: Commands[Op]['command'] & { readonly op: Op },
    options: CommandOptions = {},
  ): Promise<CommandResult<Op>> {
    for (let attempt = 1; ; attempt++) {
      await this.#settled;
      if (this.#server === null || this.#state === 'over') throw new FusetapError('FAILED', 'the bus has no server');
      try {
        return await this.#server.request<Op>(command, options);
      } catch (error) {
        const isRepeatable = REPEATABLE.has(command.op) && options.once !== true;
        if (!isServerDeath(error) || !isRepeatable || attempt === DEATH_LIMIT) throw error;
        // its death is being dealt with in this turn of the event loop, so `settled` is of the next server
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  /** Gives a command to a server that outlived its bus: its mount was taken away. @returns null where none has */
  async lastRequest<Op extends keyof Commands>(
    command: Commands[Op]['command'] & { readonly op: Op },
  ): Promise<CommandResult<Op> | null> {
    const server = this.#server;
    return server === null || server.exited ? null : await server.request<Op>(command);
  }

  /**
   * Replaces the server by one of the code that is installed now.
   * @returns how long requests had to wait, in milliseconds
   * @throws FusetapError where the new server does not come up; the old one then goes on
   */
  async upgrade(): Promise<{ pauseMs: number }> {
    return await this.#inTurn(async () => {
      if (this.#isOver()) throw new FusetapError('FAILED', 'the bus has no running server to replace');
      if (this.#bus.cannotReplace !== null) {
        throw new FusetapError('UNSUPPORTED', `the server cannot be replaced: ${this.#bus.cannotReplace}`, {
          hint: 'stop the bus, and start it anew',
        });
      }
      const next = await this.#loadUpgrade();
      const replaced = this.#replace(next);
      // where the new one dies as it begins, `settled` is of the one after it
      this.#settled = replaced.then(nothing, nothing);
      return await replaced;
    });
  }

  /** Ends the server for good; resolves when nothing of it is left. */
  async end(): Promise<void> {
    this.#over();
    await Promise.all([this.#server?.kill(), this.#next?.kill()]);
  }

  /** Replacements wait for one another. */
  #inTurn<Result>(replace: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(replace);
    this.#turn = result.then(nothing, nothing);
    return result;
  }

  #over(): void {
    this.#state = 'over';
    if (this.#heartbeat !== null) clearInterval(this.#heartbeat);
  }

  /** Other code may open what ended servers before; where it ends this one too, that is not tried a second time. */
  async #loadUpgrade(): Promise<ServerProcess> {
    try {
      return await this.#load({ strict: true, retry: true });
    } catch (error) {
      if (!isServerDeath(error) || this.#isOver()) throw error;
      return await this.#load({ strict: true, retry: false });
    }
  }

  /** A server that is loaded and knows the vbds, but does not read yet. */
  async #load(choice: ReplayChoice): Promise<ServerProcess> {
    const server = this.#bus.launch({
      forgotten: (nodeId) => this.#bus.forgotten(nodeId),
      memoryWanted: (nodeId) => this.#bus.memoryWanted(nodeId),
      gone: () => this.#giveUp('the mount was taken away'),
      died: (how) => {
        if (server === this.#server && server !== this.#retired) this.#died(server, how);
      },
    });
    this.#next = server;
    try {
      await server.loaded(LOAD_LIMIT_MS);
      await this.#bus.replay(server, choice);
      if (this.#isOver()) throw new FusetapError('FAILED', 'the bus has ended');
      return server;
    } catch (error) {
      await server.kill();
      throw error;
    } finally {
      this.#next = null;
    }
  }

  async #putInPlace(server: ServerProcess): Promise<void> {
    if (server.exited) throw new FusetapError('FAILED', 'the server died before it began');
    this.#server = server;
    this.#answeredAtStart = this.#bus.answered();
    this.#inPlaceSinceMs = performance.now();
    await server.request<'start'>({ op: 'start' });
    this.#bus.inPlace(server);
    this.#silentBeats = 0;
    if (!this.#isOver()) this.#state = 'running';
  }

  /** Puts a loaded server in the place of the one that runs, or has just died by itself. */
  async #replace(next: ServerProcess): Promise<{ pauseMs: number }> {
    const begun = performance.now();
    const old = this.#server;
    this.#retired = old;
    this.#state = 'restarting';
    await old?.kill();
    this.#bus.takeInFlight();
    try {
      // what was attached or detached while it loaded
      await this.#bus.replay(next, RESTART);
      return await this.#takeOver(next, { oldPid: old?.pid ?? null, why: 'upgrade', begun });
    } catch (error) {
      await next.kill();
      // it died before it was in place, where its death is nobody's business
      if (this.#server === old && old !== null) this.#replaceDead(old, begun);
      throw error;
    }
  }

  /** To be called when nothing of the old server is left. */
  async #takeOver(next: ServerProcess, { oldPid, why, begun }: Replacement): Promise<{ pauseMs: number }> {
    try {
      this.#bus.resend();
    } catch (error) {
      await next.kill();
      this.#giveUp((error as Error).message);
      throw error;
    }
    await this.#putInPlace(next);
    this.#restarts += 1;
    const pauseMs = performance.now() - begun;
    this.#logReplaced(next, oldPid, why, pauseMs);
    return { pauseMs };
  }

  #died(dead: ServerProcess, how: string): void {
    if (this.#isOver()) return;
    this.#bus.log({ event: 'server-died', pid: dead.pid, how });
    const reason = this.#reasonToGiveUp();
    if (reason !== null) return this.#giveUp(reason);
    this.#state = 'restarting';
    this.#replaceDead(dead, performance.now());
  }

  #replaceDead(dead: ServerProcess, begun: number): void {
    this.#settled = this.#inTurn(() => this.#restart(dead, begun)).catch(nothing);
  }

  /** Starts servers until one is in place; that one's death, however soon, is dealt with as any other. */
  async #restart(dead: ServerProcess, begun: number): Promise<void> {
    let told: string | null = null;
    let pauseMs = FIRST_PAUSE_MS;
    if (this.#idleDeaths > 1) await delay(Math.min(FIRST_PAUSE_MS * 2 ** this.#idleDeaths, LAST_PAUSE_MS));
    // an upgrade that was under way may have replaced it
    while (this.#server === dead && !this.#isOver()) {
      try {
        await this.#takeOver(await this.#load(RESTART), { oldPid: dead.pid, why: 'death', begun });
      } catch (error) {
        if (this.#server !== dead || this.#isOver()) return;
        const { message: reason } = error as Error;
        if (reason !== told) this.#bus.log({ event: 'server-not-started', reason });
        told = reason;
        if (performance.now() - begun >= this.#bus.startLimitMs) return this.#giveUp(`no server started: ${reason}`);
        await delay(pauseMs);
        pauseMs = Math.min(2 * pauseMs, LAST_PAUSE_MS);
      }
    }
  }

  #logReplaced(next: ServerProcess, oldPid: number | null, why: string, pauseMs: number): void {
    const rounded = Math.round(pauseMs * 10) / 10;
    this.#bus.log({ event: 'server-replaced', pid: next.pid ?? 0, oldPid, why, pauseMs: rounded });
  }

  #isOver(): boolean {
    return this.#state === 'over';
  }

  #reasonToGiveUp(): string | null {
    if (this.#bus.cannotReplace !== null) return `the server died, and ${this.#bus.cannotReplace}`;
    const inFlight = new Set(this.#bus.takeInFlight());
    return this.#reasonInAnswers(inFlight.size > 0) ?? this.#reasonInRequests(inFlight);
  }

  /** @param wasAtWork whether the server had read a request that it did not answer */
  #reasonInAnswers(wasAtWork: boolean): string | null {
    const nowMs = performance.now();
    const wasOfUse = this.#bus.answered() > this.#answeredAtStart || nowMs - this.#inPlaceSinceMs > SOON_MS;
    this.#barren = wasOfUse || !wasAtWork ? 0 : this.#barren + 1;
    if (this.#barren >= DEATH_LIMIT) return `${DEATH_LIMIT} servers in a row died before they answered a request`;
    if (this.#idleDeaths === 0) this.#idleSinceMs = nowMs;
    this.#idleDeaths = wasOfUse || wasAtWork ? 0 : this.#idleDeaths + 1;
    if (this.#idleDeaths < DEATH_LIMIT || nowMs - this.#idleSinceMs < this.#bus.startLimitMs) return null;
    return `no server lived until it read a request, for ${Math.round((nowMs - this.#idleSinceMs) / 1000)} s`;
  }

  #reasonInRequests(inFlight: ReadonlySet<number>): string | null {
    for (const unique of this.#deathsByRequest.keys()) {
      if (!inFlight.has(unique)) this.#deathsByRequest.delete(unique);
    }
    for (const unique of inFlight) {
      const deaths = (this.#deathsByRequest.get(unique) ?? 0) + 1;
      if (deaths >= DEATH_LIMIT) return `${DEATH_LIMIT} servers died while they worked on the same request`;
      this.#deathsByRequest.set(unique, deaths);
    }
    return null;
  }

  #giveUp(why: string): void {
    if (this.#state === 'over') return;
    this.#over();
    this.#bus.gaveUp(why);
  }

  /**
   * A server whose main thread does not answer for long is stopped or spins, and so may a thread of it: it is killed,
   * and so replaced. Beats are counted, not time: where it was this process that slept, the server has not been silent.
   */
  async #beat(): Promise<void> {
    const server = this.#server;
    if (this.#state !== 'running' || server === null) return;
    const spinningBeats = server.pid === null ? 0 : this.#spinWatch.look(server.pid, this.#bus.work());
    if (spinningBeats * this.#beatMs >= this.#bus.silenceLimitMs) {
      this.#bus.log({
        event: 'server-spins',
        pid: server.pid ?? 0,
        spinningMs: Math.round(spinningBeats * this.#beatMs),
      });
      return await this.#kill(server);
    }
    // one that has answered the last beat was heard almost a whole beat ago
    this.#silentBeats = server.silentForMs() < 1.5 * this.#beatMs ? 0 : this.#silentBeats + 1;
    if (this.#silentBeats === 0) return;
    // the first of them asks, so only those after it have had no answer
    if ((this.#silentBeats - 1) * this.#beatMs >= this.#bus.silenceLimitMs) {
      this.#bus.log({ event: 'server-silent', pid: server.pid ?? 0, silentMs: Math.round(server.silentForMs()) });
      return await this.#kill(server);
    }
    server.request<'ping'>({ op: 'ping' }).catch(() => {});
  }

  /** Its death is then dealt with as any other. */
  async #kill(server: ServerProcess): Promise<void> {
    this.#state = 'restarting';
    await server.kill();
  }
}

interface Replacement {
  readonly oldPid: number | null;
  readonly why: string;
  /** when requests began to wait, as performance.now() */
  readonly begun: number;
}

/** There is nothing else to serve the vbds: those that fail break alone. */
const RESTART: ReplayChoice = { strict: false, retry: false };

const nothing = (): void => {};
