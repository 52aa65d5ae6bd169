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
 */
import { FusetapError } from '../../drivers/errors.js';
import type { CommandResult, Commands } from './ipc.js';
import type { BusEvent } from './log-line.js';
import { type CommandOptions, isServerDeath, type ServerEvents, type ServerProcess } from './server-process.js';

/** deaths without an answer in between, or with one request under way each time */
const DEATH_LIMIT = 5;

const HEARTBEAT_MS = 5_000;
/** how long a server may be silent: a request that waits for a disk does not make it silent, a stopped process does */
export const DEFAULT_SILENCE_LIMIT_MS = 30_000;

export interface Supervised {
  launch(events: ServerEvents): ServerProcess;
  /** tells a new server of all vbds */
  replay(server: ServerProcess): Promise<void>;
  /** has the kernel queue again what the last server had not answered */
  resend(): void;
  /** whether the kernel can do that; without, the first death is the end */
  readonly canResend: boolean;
  /** how many requests servers have answered so far */
  answered(): number;
  /** the requests that the server which has just died was working on */
  takeInFlight(): number[];
  forgotten(nodeId: number): void;
  /** a thread wants to fill holes of a memory */
  memoryWanted(nodeId: number): void;
  /** another server is in place */
  replaced(): void;
  gaveUp(why: string): void;
  log(event: BusEvent): void;
  readonly silenceLimitMs: number;
}

/** commands that may be given again to another server: they have no effect that could be doubled */
const REPEATABLE: ReadonlySet<keyof Commands> = new Set([
  'describe',
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
  /** settles when a server is in place again */
  #settled: Promise<void> = Promise.resolve();
  #state: 'running' | 'restarting' | 'over' = 'restarting';
  #restarts = 0;
  /** the death of the current server is our own doing */
  #replacing = false;
  #barren = 0;
  #answeredAtStart = 0;
  readonly #deathsByRequest = new Map<number, number>();
  #heartbeat: NodeJS.Timeout | null = null;

  constructor(bus: Supervised) {
    this.#bus = bus;
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
    const server = await this.#load();
    await this.#putInPlace(server);
    this.#heartbeat = setInterval(() => void this.#beat(), HEARTBEAT_MS);
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

  /**
   * Replaces the server by one of the code that is installed now.
   * @returns how long requests had to wait, in milliseconds
   * @throws FusetapError where the new server does not come up; the old one then goes on
   */
  async upgrade(): Promise<{ pauseMs: number }> {
    await this.#settled;
    if (this.#state !== 'running') throw new FusetapError('FAILED', 'the bus has no running server to replace');
    const next = await this.#load();
    return await this.#replace(next, 'upgrade');
  }

  /** Ends the server for good; resolves when nothing of it is left. */
  async end(): Promise<void> {
    this.#over();
    await this.#server?.kill();
  }

  #over(): void {
    this.#state = 'over';
    if (this.#heartbeat !== null) clearInterval(this.#heartbeat);
  }

  /** A server that is loaded and knows the vbds, but does not read yet. */
  async #load(): Promise<ServerProcess> {
    const server = this.#bus.launch({
      forgotten: (nodeId) => this.#bus.forgotten(nodeId),
      memoryWanted: (nodeId) => this.#bus.memoryWanted(nodeId),
      gone: () => this.#giveUp('the mount was taken away'),
      died: (how) => {
        if (server === this.#server) this.#died(how);
      },
    });
    try {
      await server.loaded();
      await this.#bus.replay(server);
      return server;
    } catch (error) {
      await server.kill();
      throw error;
    }
  }

  async #putInPlace(server: ServerProcess): Promise<void> {
    this.#server = server;
    this.#answeredAtStart = this.#bus.answered();
    await server.request<'start'>({ op: 'start' });
    this.#state = 'running';
  }

  async #replace(next: ServerProcess, why: string): Promise<{ pauseMs: number }> {
    const begun = performance.now();
    const old = this.#server;
    this.#replacing = true;
    this.#state = 'restarting';
    const replaced = (async (): Promise<void> => {
      try {
        await old?.kill();
        this.#bus.takeInFlight();
        this.#bus.resend();
        await this.#putInPlace(next);
      } finally {
        this.#replacing = false;
      }
    })();
    this.#settled = replaced.catch(() => {});
    await replaced;
    this.#restarts += 1;
    this.#bus.replaced();
    const pauseMs = performance.now() - begun;
    this.#logReplaced(next, old?.pid ?? null, why, pauseMs);
    return { pauseMs };
  }

  #died(how: string): void {
    if (this.#replacing || this.#state === 'over') return;
    this.#bus.log({ event: 'server-died', pid: this.#server?.pid ?? null, how });
    const reason = this.#reasonToGiveUp();
    if (reason !== null) return this.#giveUp(reason);
    this.#state = 'restarting';
    this.#settled = this.#restart(performance.now(), this.#server?.pid ?? null);
  }

  /** Never rejects: what fails here is the end of the bus. */
  async #restart(begun: number, deadPid: number | null): Promise<void> {
    try {
      const next = await this.#load();
      if (this.#isOver()) return await next.kill();
      this.#bus.resend();
      await this.#putInPlace(next);
      this.#restarts += 1;
      this.#bus.replaced();
      const pauseMs = performance.now() - begun;
      this.#logReplaced(next, deadPid, 'death', pauseMs);
    } catch (error) {
      if (this.#isOver()) return;
      this.#bus.log({ event: 'server-not-started', reason: (error as Error).message });
      this.#barren += 1;
      if (this.#barren >= DEATH_LIMIT) return this.#giveUp(`${DEATH_LIMIT} servers in a row did not start`);
      await this.#restart(begun, deadPid);
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
    if (!this.#bus.canResend) return 'the server died, and this kernel cannot send its requests again (Linux 6.9 can)';
    this.#barren = this.#bus.answered() > this.#answeredAtStart ? 0 : this.#barren + 1;
    if (this.#barren >= DEATH_LIMIT) return `${DEATH_LIMIT} servers in a row died before they answered a request`;
    const inFlight = new Set(this.#bus.takeInFlight());
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

  /** A server whose main thread does not answer for long is stopped or spins: it is killed, and so replaced. */
  async #beat(): Promise<void> {
    const server = this.#server;
    if (this.#state !== 'running' || server === null || server.silentForMs() < HEARTBEAT_MS) return;
    if (server.silentForMs() > this.#bus.silenceLimitMs) {
      this.#bus.log({ event: 'server-silent', pid: server.pid ?? 0, silentMs: Math.round(server.silentForMs()) });
      this.#state = 'restarting';
      await server.kill();
      return;
    }
    server.request<'ping'>({ op: 'ping' }).catch(() => {});
  }
}
