/** One bus under torture: its vbds, its writer, and the disturbances of its server. */
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

/** the limit of every command on a quiet machine, whatever happens to its bus */
const COMMAND_LIMIT_MS = 60_000;
/** the limit of every command on a healthy vbd on a quiet machine, while another vbd is sick */
const HEALTHY_LIMIT_MS = 15_000;
const RESTART_LIMIT_MS = 60_000;
const ASK_LIMIT_MS = 15_000;
const POLL_MS = 50;
const LOG_LINES = 20;

/** An attached disk. */
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
  /** disks that stay attached and healthy, and are written to all the time */
  readonly disks: AttachedDisk[] = [];
  /** disks that stay attached and are written to as well, for faults of their images */
  readonly sick: AttachedDisk[] = [];
  /** it ended although it should not have; this was reported */
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

  /** Starts a bus that runs from the stage's package. @param env variables for this bus */
  static async begin(name: string, stage: Stage, journal: Journal, env: NodeJS.ProcessEnv = {}): Promise<Bus> {
    const bus = new Bus(await resolveBus(name, stage.runtimeDir), stage, journal);
    const { status, stderr } = await bus.command('start', ['start'], { fromCopy: true, env });
    if (status !== 0) throw new Error(`bus ${name} cannot be started: ${stderr}`);
    return bus;
  }

  /** The limit of a command on a healthy vbd while another vbd is sick. */
  get healthyLimitMs(): number {
    return this.stage.pace.scaled(HEALTHY_LIMIT_MS);
  }

  /** The position in the kernel of each thread of its processes and of its writer: explains why a bus is stuck. */
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

  /** The last lines of its log, which may be removed with the bus. */
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

  /** Runs a command that must succeed unless a fault excuses it. @returns null if it failed */
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

  /** Attaches completely or not at all. @returns null if that was refused */
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

  /** Attaches a disk that stays, and starts to write to it. @throws Error if that fails */
  async adopt(disk: Disk, among: AttachedDisk[] = this.disks, excuses: Excuses = {}): Promise<AttachedDisk> {
    const attached = await this.attach(disk);
    if (attached === null) throw new Error(`bus ${this.name}: ${disk.image} cannot be attached`);
    // its permanent faults
    if (excuses.io !== undefined) this.journal.excuse({ io: { ...excuses.io, path: attached.path } });
    await this.tend(attached, among);
    return attached;
  }

  /** Starts to write to a disk. */
  async tend(disk: AttachedDisk, among: AttachedDisk[] = this.disks): Promise<void> {
    await this.writer.begin(targetOf(disk));
    among.push(disk);
  }

  /** The state of the bus, or of its orphan, from the control socket. */
  info(timeoutMs = this.stage.pace.scaled(ASK_LIMIT_MS)): Promise<BusInfo> {
    return showBus(this.place, { timeoutMs });
  }

  /** Runs `work` while no other work disturbs the server. */
  quietly<Result>(act: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Kills the server. Call it only inside `quietly`. @returns what to wait for, see settled */
  async killServer(info?: BusInfo): Promise<number> {
    const { serverPid, restarts } = info ?? (await this.info());
    if (serverPid === null) throw new Error('there is no server');
    kill(serverPid, 'SIGKILL');
    this.journal.count('kill -9 of a server');
    return restarts + 1;
  }

  /** Waits until a server serves. @throws Error if none starts in time */
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

/** Waits until the probe returns true. @throws Error if it does not within the limit */
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
