/** One bus under torture: what is attached to it, who writes there, and how its server is disturbed. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type BusPlace, resolveBus, showBus } from '../../../../mount/client/index.js';
import type { BusInfo, VbdInfo } from '../../../../mount/control/interface.js';
import { readBusRecord } from '../../../../mount/runtime/bus-record.js';
import { until } from '../../../../system/until.js';
import type { Excuses, Journal } from './journal.js';
import { type Outcome, type ProgramOptions, runFusetap } from './program.js';
import { kill, type Stage } from './stage.js';
import { whereItStands } from './where-it-stands.js';
import { Writer } from './writer.js';

/** on a quiet machine: no command may take longer, whatever happens to its bus */
const COMMAND_LIMIT_MS = 60_000;
/** on a quiet machine: no command on a healthy vbd may take longer because of a sick one */
const HEALTHY_LIMIT_MS = 15_000;
const RESTART_LIMIT_MS = 60_000;
const ASK_LIMIT_MS = 15_000;
const POLL_MS = 50;
const LOG_LINES = 20;

/** What is attached. */
export interface Disk {
  readonly driver: 'aio' | 'sync' | 'ram';
  readonly passthrough: 'on' | 'off';
  readonly image: string;
  readonly sizeBytes: number;
}

export type AttachedDisk = Disk & { readonly path: string; readonly vdev: string; readonly number: number };

let disksSoFar = 0;

export class Bus {
  readonly name: string;
  readonly place: BusPlace;
  readonly stage: Stage;
  readonly journal: Journal;
  readonly writer: Writer;
  /** what stays attached, is healthy, and is written to all the time */
  readonly disks: AttachedDisk[] = [];
  /** what stays attached and is written to as well, for faults of its image */
  readonly sick: AttachedDisk[] = [];
  /** it ended although it should have lived, which was told */
  isLost = false;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(place: BusPlace, stage: Stage, journal: Journal) {
    this.name = place.name;
    this.place = place;
    this.stage = stage;
    this.journal = journal;
    this.writer = new Writer(place.name, journal, stage);
    this.writer.onBusGone = () => this.lose('the bus has ended');
  }

  /** Begins a bus that runs from the stage's package. @param env variables of its own */
  static async begin(name: string, stage: Stage, journal: Journal, env: NodeJS.ProcessEnv = {}): Promise<Bus> {
    const bus = new Bus(await resolveBus(name, stage.runtimeDir), stage, journal);
    const { status, stderr } = await bus.command('start', ['start'], { fromCopy: true, env });
    if (status !== 0) throw new Error(`bus ${name} cannot be started: ${stderr}`);
    return bus;
  }

  /** No command on a healthy vbd may take longer because of a sick one. */
  get healthyLimitMs(): number {
    return this.stage.pace.scaled(HEALTHY_LIMIT_MS);
  }

  /** Where each thread of its processes and of its writer stands: a bus that does not get on is explained by that. */
  async whereItStands(): Promise<string[]> {
    const record = readBusRecord(this.place.stateDir);
    const parts = [
      await whereItStands('keeper', record?.keeperPid),
      await whereItStands('server', record?.serverPid),
      await whereItStands('writer', this.writer.pid),
    ];
    return parts.flat();
  }

  lose(why: string): void {
    if (this.isLost || this.writer.isEndExpected) return;
    this.isLost = true;
    this.writer.isEndExpected = true;
    this.journal.error(this.name, `${why}: it is left alone from here on`);
    for (const line of this.#lastOfLog()) console.log(`  ${line}`);
  }

  /** What its log says last: it may go with the bus. */
  #lastOfLog(): string[] {
    try {
      return readFileSync(join(this.place.stateDir, 'log'), 'utf8').trimEnd().split('\n').slice(-LOG_LINES);
    } catch {
      return ['its log is gone'];
    }
  }

  /** Runs a command on this bus. One that exceeds its limit is an error. */
  async command(kind: string, args: readonly string[], options: Partial<ProgramOptions> = {}): Promise<Outcome> {
    const limitMs = options.limitMs ?? this.stage.pace.scaled(COMMAND_LIMIT_MS);
    const outcome = await runFusetap(this.stage, [...args, '--bus', this.name], { ...options, limitMs });
    this.journal.timed(kind, outcome.ms);
    if (outcome.isLate && !this.isLost)
      this.journal.error(this.name, `${args.join(' ')} did not end within ${limitMs / 1000} s`);
    return outcome;
  }

  /** Runs a command that must go well unless a fault excuses it. @returns null where it did not */
  async demand(
    kind: string,
    args: readonly string[],
    options: Partial<ProgramOptions> & { readonly mayFail?: RegExp } = {},
  ): Promise<Outcome | null> {
    const fromMs = Date.now();
    const outcome = await this.command(kind, args, options);
    if (outcome.status === 0) return outcome;
    if (outcome.isLate || this.isLost) return null;
    if (options.mayFail?.test(outcome.stderr) || this.journal.isCommandExcused(this.name, kind, fromMs)) {
      this.journal.refused.set(kind, (this.journal.refused.get(kind) ?? 0) + 1);
    } else {
      this.journal.error(this.name, `${args.join(' ')} exits with ${outcome.status}: ${outcome.stderr.trim()}`);
    }
    return null;
  }

  /** Attaches, or does nothing of it. @returns null where that was refused */
  async attach(disk: Disk, limitMs?: number): Promise<AttachedDisk | null> {
    const { driver, image, passthrough } = disk;
    const words = ['attach', '--json', '--driver', driver, '--image', image, '--passthrough', passthrough];
    const outcome = await this.demand('attach', words, limitMs === undefined ? {} : { limitMs });
    if (outcome !== null) {
      const { path, vdev } = JSON.parse(outcome.stdout) as VbdInfo;
      return { ...disk, path, vdev, number: ++disksSoFar };
    }
    const info = await this.info().catch(() => null);
    const left = info?.vbds.find((vbd) => vbd.image === image);
    if (left !== undefined)
      this.journal.error(this.name, `attach of ${image} failed, and it is attached as ${left.vdev}`);
    return null;
  }

  /** Attaches a disk that stays, and has it written to. @throws Error where it cannot be */
  async adopt(disk: Disk, among: AttachedDisk[] = this.disks, excuses: Excuses = {}): Promise<AttachedDisk> {
    const attached = await this.attach(disk);
    if (attached === null) throw new Error(`bus ${this.name}: ${disk.image} cannot be attached`);
    // what is wrong with it for good
    if (excuses.io !== undefined) this.journal.excuse({ io: { ...excuses.io, path: attached.path } });
    await this.tend(attached, among);
    return attached;
  }

  /** Has a disk written to from now on. */
  async tend(disk: AttachedDisk, among: AttachedDisk[] = this.disks): Promise<void> {
    await this.writer.begin(targetOf(disk));
    among.push(disk);
  }

  /** The bus, or an orphan's, by the control socket. */
  info(timeoutMs = this.stage.pace.scaled(ASK_LIMIT_MS)): Promise<BusInfo> {
    return showBus(this.place, { timeoutMs });
  }

  /** Does something to the server, or keeps others from doing so. */
  quietly<Result>(act: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Kills the server. To be called quietly. @returns what to wait for, see settled */
  async killServer(info?: BusInfo): Promise<number> {
    const { serverPid, restarts } = info ?? (await this.info());
    if (serverPid === null) throw new Error('there is no server');
    kill(serverPid, 'SIGKILL');
    this.journal.count('kill -9 of a server');
    return restarts + 1;
  }

  /** Waits until a server is in place. @throws Error where none comes */
  async settled(restarts: number): Promise<void> {
    const began = performance.now();
    const limitMs = this.stage.pace.scaled(RESTART_LIMIT_MS);
    const deadline = Date.now() + limitMs;
    for (;;) {
      const info = await this.info().catch((error: Error) => error);
      if (!(info instanceof Error)) {
        if (info.state === 'failed') this.lose('the bus was given up');
        if (info.state === 'running' && info.restarts >= restarts) {
          this.journal.timed('a new server', performance.now() - began);
          return;
        }
      }
      if (this.isLost) return;
      const last = info instanceof Error ? info.message : info.state;
      if (Date.now() > deadline) throw new Error(`no new server within ${limitMs / 1000} s: ${last}`);
      await delay(POLL_MS);
    }
  }
}

/** Waits until the probe says yes. @throws Error where it does not within the limit */
export async function eventually(
  what: string,
  limitMs: number,
  probe: () => Promise<boolean> | boolean,
): Promise<void> {
  if (await until(probe, { timeoutMs: limitMs, everyMs: POLL_MS })) return;
  throw new Error(`not within ${limitMs / 1000} s: ${what}`);
}

export function targetOf({ path, number, sizeBytes }: AttachedDisk): { path: string; disk: number; sizeBytes: number } {
  return { path, disk: number, sizeBytes };
}
