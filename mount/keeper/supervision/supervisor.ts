/**
 * Keeps a server running for the bus: starts it, replaces it when it dies or does not answer, and gives the bus up when
 * that does not help.
 *
 *      ┌─ loading: a server is started, and told of the vbds; the old one is reaped   ◄──────────────┐
 *      │      │                                                                                      │
 *      │      ▼                                                                                      │ it died, or
 *      │   starting: RESEND was sent, and it begins to read ─────────────────────────────────────────┤ it is upgraded
 *      │      │                                                                                      │
 *      │      ▼                                                                                      │
 *      │   running ──► ending: it is silent or spins, and is killed ─────────────────────────────────┘
 *      ▼
 *     over: given up, or the bus ends
 *
 * RESEND is sent once per server. It is sent after the old server is reaped, so that no old write can finish after a
 * newer one; and before any thread of the new server reads, so that no request which the new server has read is queued
 * again. Clients see a pause. For an upgrade, the new process is loaded and told of the vbds before the old one is
 * killed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../../drivers/errors.js';
import { readMemoryKills } from '../../../system/proc.js';
import type { Work } from '../../ledger/ledger.js';
import type { LastWords } from '../../runtime/last-words.js';
import type { BusEvent } from '../../runtime/log-line.js';
import type { CommandResult, Commands } from '../../server/commands.js';
import { DEATH_LIMIT, DeathEvidence, isKilledByOthers, pauseBeforeTryMs } from './death-evidence.js';
import { Heartbeat } from './heartbeat.js';
import { type CommandOptions, isServerDeath, type ServerLife, type ServerProcess } from './server-process.js';

/** how long to try to start a server: descriptors, memory or files of the package may be missing for a while */
export const DEFAULT_START_LIMIT_MS = 600_000;
/** how long a server may load */
const LOAD_LIMIT_MS = 60_000;

export interface ReplayChoice {
  /** fail if a vbd would break that works now: the old server keeps running then */
  readonly strict: boolean;
  /** try again disks that have killed servers */
  readonly retry: boolean;
}

export interface Supervised {
  /** @param program null: the one of the keeper's own installation */
  launch(life: ServerLife, program: string | null): ServerProcess;
  /** tells a new server of all vbds, or the second time of the changes since */
  replay(server: ServerProcess, choice: ReplayChoice): Promise<void>;
  /** makes the kernel queue the requests again that the last server has not answered */
  resend(): void;
  /** why a server cannot be replaced, neither after a death nor by an upgrade; null if it can */
  readonly cannotReplace: string | null;
  /** how many requests servers have answered so far */
  answered(): number;
  /** the requests that the server which has just died was working on */
  takeInFlight(): number[];
  /** the requests that the server works on now */
  work(): readonly Work[];
  /** a server was installed and answers requests */
  inPlace(server: ServerProcess): void;
  gaveUp(why: string): void;
  log(event: BusEvent): void;
  /** why a server that has died ended itself; null if it did not */
  lastWords(pid: number | null): Omit<LastWords, 'pid'> | null;
  readonly silenceLimitMs: number;
  /** how long to try to start a server; failures until then are no evidence against the bus */
  readonly startLimitMs: number;
}

/** idempotent commands, which may be given again to another server */
const REPEATABLE: ReadonlySet<keyof Commands> = new Set([
  'plan',
  'needs',
  'measure',
  'prepare',
  'repair',
  'attach',
  'partitions',
  'names',
  'swap',
  'hasData',
  'repartition',
  'sizeOf',
  'resize',
  'leave',
  'hold',
  'release',
  'poison',
  'giveUp',
  'detach',
  'ping',
]);

type State =
  /** `old` is dead, or being killed; null before the first server */
  | { readonly is: 'loading'; readonly old: ServerProcess | null }
  | { readonly is: 'starting' | 'running' | 'ending'; readonly server: ServerProcess }
  /** `last` may have outlived the bus; null if there never was one */
  | { readonly is: 'over'; readonly last: ServerProcess | null };

export class Supervisor {
  readonly #bus: Supervised;
  #state: State = { is: 'loading', old: null };
  /** resolved when a server is running, or the bus is over */
  #waiting: (() => void)[] = [];
  /** a server that is loading, and may never be installed */
  #next: ServerProcess | null = null;
  /** the last replacement: they run one at a time, so that never two servers read */
  #turn: Promise<unknown> = Promise.resolve();
  #restarts: number;
  /** the program that the last upgrade named; null: the one of the keeper's own installation */
  #program: string | null = null;
  readonly #evidence: DeathEvidence;
  readonly #heartbeat: Heartbeat;
  #beats: NodeJS.Timeout | null = null;
  /** when the last server began to read requests */
  #memoryKills: number | null = null;

  /** @param restarts how many servers were replaced before this supervisor */
  constructor(bus: Supervised, restarts = 0) {
    this.#bus = bus;
    this.#restarts = restarts;
    this.#evidence = new DeathEvidence(bus.startLimitMs);
    this.#heartbeat = new Heartbeat(bus.silenceLimitMs);
  }

  get state(): 'running' | 'restarting' | 'over' {
    const { is } = this.#state;
    return is === 'running' || is === 'over' ? is : 'restarting';
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** The version of the server that is installed, or was the last one; null if it does not tell it. */
  get version(): string | null {
    return serverOf(this.#state)?.version ?? null;
  }

  get pid(): number | null {
    return this.#state.is === 'over' ? null : (serverOf(this.#state)?.pid ?? null);
  }

  /** Starts the first server; resolves when it answers requests. */
  async start(): Promise<void> {
    await this.#putInPlace(await this.#load({ strict: false, retry: true }));
    this.#beats = setInterval(() => void this.#beat(), this.#heartbeat.everyMs);
  }

  /** Gives a command to the installed server. If that dies, an idempotent command is given to the next one. */
  async request<Op extends keyof Commands>(
    command: Commands[Op]['command'] & { readonly op: Op },
    options: CommandOptions = {},
  ): Promise<CommandResult<Op>> {
    for (let attempt = 1; ; attempt++) {
      const server = await this.#running();
      // the server would never be told
      options.signal?.throwIfAborted();
      try {
        return await server.request<Op>(command, options);
      } catch (error) {
        const isRepeatable = REPEATABLE.has(command.op) && options.once !== true;
        if (!isServerDeath(error) || !isRepeatable || attempt === DEATH_LIMIT) throw error;
      }
    }
  }

  /**
   * Gives a command to a server that outlived its bus because somebody removed the mount.
   * @returns null if there is no such server
   */
  async lastRequest<Op extends keyof Commands>(
    command: Commands[Op]['command'] & { readonly op: Op },
  ): Promise<CommandResult<Op> | null> {
    const server = serverOf(this.#state);
    return server === null || server.exited ? null : await server.request<Op>(command);
  }

  /**
   * Replaces the server by one that runs the code installed now.
   * @param program of the new server and those after it; default: the one of the keeper's own installation
   * @returns how long requests had to wait, in milliseconds, and the program that runs now
   * @throws FusetapError if the new server does not start; the old one keeps running then
   */
  async upgrade(program?: string): Promise<{ pauseMs: number; program: string }> {
    return await this.#inTurn(async () => {
      if (this.#isOver()) throw new FusetapError('FAILED', 'the bus has no running server to replace');
      if (this.#bus.cannotReplace !== null) {
        throw new FusetapError('UNSUPPORTED', `the server cannot be replaced: ${this.#bus.cannotReplace}`, {
          hint: 'stop the bus and start it again',
        });
      }
      const next = await this.#loadUpgrade(program ?? null);
      const { pauseMs } = await this.#replace(next);
      this.#program = program ?? null;
      return { pauseMs, program: next.program };
    });
  }

  /** Ends the server for good. Resolves when it is reaped. */
  async end(): Promise<void> {
    this.#over();
    await Promise.all([serverOf(this.#state)?.kill(), this.#next?.kill()]);
  }

  /** Waits for a server that takes commands. @throws FusetapError FAILED if the bus is over */
  async #running(): Promise<ServerProcess> {
    for (;;) {
      if (this.#state.is === 'running') return this.#state.server;
      if (this.#state.is === 'over') throw new FusetapError('FAILED', 'the bus has no server');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #enter(state: State): void {
    if (this.#isOver()) return;
    this.#state = state;
    if (state.is === 'running' || state.is === 'over') for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #isOver(): boolean {
    return this.#state.is === 'over';
  }

  #over(): void {
    this.#enter({ is: 'over', last: serverOf(this.#state) });
    if (this.#beats !== null) clearInterval(this.#beats);
  }

  #giveUp(why: string): void {
    if (this.#isOver()) return;
    this.#over();
    this.#bus.gaveUp(why);
  }

  /** Runs one replacement after the other. */
  #inTurn<Result>(replace: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(replace);
    this.#turn = result.then(nothing, nothing);
    return result;
  }

  /**
   * The new code may open a disk that killed servers before. If it dies too, a second server does not open that disk.
   */
  async #loadUpgrade(program: string | null): Promise<ServerProcess> {
    try {
      return await this.#load({ strict: true, retry: true }, program);
    } catch (error) {
      if (!isServerDeath(error) || this.#isOver()) throw error;
      return await this.#load({ strict: true, retry: false }, program);
    }
  }

  /** Starts a server that is loaded and told of the vbds, but does not read yet. */
  async #load(choice: ReplayChoice, program = this.#program): Promise<ServerProcess> {
    const life: ServerLife = {
      gone: () => this.#giveUp('the mount was taken away'),
      died: (how) => this.#died(server, how),
    };
    const server = this.#bus.launch(life, program);
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
    if (server.exited) throw new FusetapError('FAILED', 'the server died before it started');
    this.#enter({ is: 'starting', server });
    this.#memoryKills = readMemoryKills();
    this.#evidence.began({ nowMs: performance.now(), answered: this.#bus.answered() });
    await server.request<'start'>({ op: 'start' });
    this.#bus.inPlace(server);
    this.#heartbeat.reset();
    this.#enter({ is: 'running', server });
  }

  /** Replaces the server that runs, or has just died, by a loaded one. */
  async #replace(next: ServerProcess): Promise<{ pauseMs: number }> {
    const begun = performance.now();
    const old = serverOf(this.#state);
    this.#enter({ is: 'loading', old });
    await old?.kill();
    this.#bus.takeInFlight();
    try {
      // vbds may have been attached or detached while it loaded
      await this.#bus.replay(next, RESTART);
      return await this.#takeOver(next, { oldPid: old?.pid ?? null, why: 'upgrade', begun });
    } catch (error) {
      await next.kill();
      // it died before it was installed, so its exit handler ignored it: restart here
      if (this.#waitsForOneAfter(old)) this.#restartInTurn(old, begun);
      throw error;
    }
  }

  /** To be called when the old server is reaped. */
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
    const rounded = Math.round(pauseMs * 10) / 10;
    const { pid, version } = next;
    this.#bus.log({ event: 'server-replaced', pid: pid ?? 0, oldPid, why, pauseMs: rounded, version });
    return { pauseMs };
  }

  /** Ignores the death of a server that was not installed yet, or that was killed to be replaced. */
  #died(server: ServerProcess, how: string): void {
    const state = this.#state;
    if (state.is === 'loading' || state.is === 'over' || state.server !== server) return;
    const lastWords = this.#bus.lastWords(server.pid);
    this.#bus.log({ event: 'server-died', pid: server.pid, how, ...lastWords });
    const memoryKills = { before: this.#memoryKills, after: readMemoryKills() };
    const reason = this.#reasonToGiveUp(
      isKilledByOthers({ how, byKeeper: state.is === 'ending', hasLastWords: lastWords !== null, memoryKills }),
    );
    if (reason !== null) return this.#giveUp(reason);
    this.#enter({ is: 'loading', old: server });
    this.#restartInTurn(server, performance.now());
  }

  #reasonToGiveUp(wasKilled: boolean): string | null {
    if (this.#bus.cannotReplace !== null) return `the server died, and ${this.#bus.cannotReplace}`;
    const [answered, inFlight] = [this.#bus.answered(), this.#bus.takeInFlight()];
    return this.#evidence.died({ nowMs: performance.now(), answered, inFlight, wasKilled });
  }

  /** Whether this server was the last one installed, and no other has replaced it yet. */
  #waitsForOneAfter(old: ServerProcess | null): boolean {
    return this.#state.is === 'loading' && this.#state.old === old;
  }

  #restartInTurn(dead: ServerProcess | null, begun: number): void {
    this.#inTurn(() => this.#restart(dead, begun)).catch(nothing);
  }

  /** Starts servers until one is installed. If that one dies, however soon, `#died` handles it. */
  async #restart(dead: ServerProcess | null, begun: number): Promise<void> {
    let told: string | null = null;
    if (this.#evidence.pauseMs > 0) await delay(this.#evidence.pauseMs);
    // an upgrade that was under way may have replaced it
    for (let tries = 0; this.#waitsForOneAfter(dead); tries++) {
      try {
        // the installation of the last upgrade may be gone: every second try uses the keeper's own
        const program = tries % 2 === 0 ? this.#program : null;
        await this.#takeOver(await this.#load(RESTART, program), { oldPid: dead?.pid ?? null, why: 'death', begun });
      } catch (error) {
        if (!this.#waitsForOneAfter(dead)) return;
        const { message: reason } = error as Error;
        if (reason !== told) this.#bus.log({ event: 'server-not-started', reason });
        told = reason;
        if (performance.now() - begun >= this.#bus.startLimitMs) return this.#giveUp(`no server started: ${reason}`);
        await delay(pauseBeforeTryMs(tries));
      }
    }
  }

  /** Kills a server that does not work; `#died` then replaces it. */
  async #beat(): Promise<void> {
    if (this.#state.is !== 'running') return;
    const { server } = this.#state;
    const reason = this.#heartbeat.beat(server, this.#bus.work());
    if (reason === null) return;
    this.#bus.log(reason);
    this.#enter({ is: 'ending', server });
    await server.kill();
  }
}

/** The server that is installed, or was the last one. */
function serverOf(state: State): ServerProcess | null {
  if (state.is === 'loading') return state.old;
  return state.is === 'over' ? state.last : state.server;
}

interface Replacement {
  readonly oldPid: number | null;
  readonly why: string;
  /** when requests began to wait, as performance.now() */
  readonly begun: number;
}

/** No other server is left to serve the vbds, so a vbd that fails may break. */
const RESTART: ReplayChoice = { strict: false, retry: false };

const nothing = (): void => {};
