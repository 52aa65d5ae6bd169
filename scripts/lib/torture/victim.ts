/**
 * One bus under torture: some vbds with fio on them all the time, some that are attached and detached, and a server
 * that is killed, upgraded, or stopped by a signal at random times.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { showBus } from '../../../mount/client/ask.js';
import { type BusPlace, start, stop } from '../../../mount/client/index.js';
import { askBus } from '../../../mount/control/http-client.js';
import type { BusInfo, VbdInfo } from '../../../mount/control/interface.js';
import { readLog } from '../../../mount/log/read-log.js';
import { until } from '../../../system/until.js';
import type { Deeds, Findings } from './figures.js';
import { Verifier } from './verifier.js';
import { diskOfWay, type Way } from './ways.js';

const RESTART_LIMIT_MS = 30_000;
const CONTROL_LIMIT_MS = 30_000;
/** the longest time between two disturbances where servers start at once */
const SHORT_MS = 300;
/** how much of the log of a bus that was given up is printed */
const LOG_LINES = 40;

/** A disk to attach. */
export interface Wish extends Way {
  readonly image: string;
}

export class Victim {
  readonly #place: BusPlace;
  readonly #deeds: Deeds;
  readonly #findings: Findings;
  readonly #verifiers: Verifier[] = [];
  /** the longest time between two disturbances: a bus is given up if five servers die with the same slow request */
  #mostMs = SHORT_MS;
  readonly #lasting: { readonly path: string; readonly parts: number }[] = [];

  constructor(place: BusPlace, deeds: Deeds, findings: Findings) {
    this.#place = place;
    this.#deeds = deeds;
    this.#findings = findings;
  }

  async begin(wishes: readonly Wish[]): Promise<void> {
    await start(this.#place);
    for (const wish of wishes) this.#lasting.push({ path: (await this.#attach(wish)).path, parts: wish.parts ?? 1 });
  }

  verify(): void {
    this.#lasting.forEach((disk, i) => {
      const work = { ...disk, blockBytes: i % 2 === 0 ? 4096 : 1 << 20 };
      this.#verifiers.push(new Verifier(work, this.#deeds, this.#findings));
    });
  }

  /** Disturbs the server until `isOver`. */
  async disturb(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await delay(Math.random() * this.#mostMs);
      const way = Math.random();
      await this.#try('disturbing', () => (way < 0.75 ? this.#kill() : way < 0.95 ? this.#upgrade() : this.#halt()));
    }
  }

  /** Attaches and detaches other disks until `isOver`. */
  async comeAndGo(wishes: readonly Wish[], isOver: () => boolean): Promise<void> {
    for (let i = 0; !isOver(); i++) {
      const wish = wishes[i % wishes.length] as Wish;
      await this.#try(`attach and detach of ${wish.driver}`, async () => {
        const { vdev } = await this.#attach(wish);
        await delay(Math.random() * 300);
        await askBus(this.#place, { method: 'DELETE', path: `/vbds/${vdev}?wait=10`, timeoutMs: CONTROL_LIMIT_MS });
        this.#deeds.detaches += 1;
      });
    }
  }

  async endVerifying(): Promise<void> {
    await Promise.all(this.#verifiers.map((verifier) => verifier.end()));
  }

  /** Starts a fresh server: the resources of a server depend on what it did since the last kill. */
  async renew(): Promise<void> {
    await this.#try('upgrade', () => this.#upgrade());
  }

  async stop(): Promise<void> {
    await this.#try('stop', () => stop(this.#place));
  }

  async #try(what: string, act: () => Promise<unknown>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#findings.errors.push(`bus ${this.#place.name}: ${what}: ${(error as Error).message}`);
      await this.#noteFailedBus();
      await delay(500);
    }
  }

  async #noteFailedBus(): Promise<void> {
    if (this.#findings.hasFailedBus) return;
    const state = await this.#info().then(
      (info) => info.state,
      () => 'unknown',
    );
    if (state !== 'failed' || this.#findings.hasFailedBus) return;
    this.#findings.hasFailedBus = true;
    const lines = readLog(this.#place).lines.slice(-LOG_LINES);
    this.#findings.errors.push(...lines.map(({ text }) => `  ${text}`));
  }

  async #attach(wish: Wish): Promise<VbdInfo> {
    const body = { ...diskOfWay(wish, wish.image), vdev: null, mode: 'w', passthrough: wish.passthrough };
    const vbd = await askBus<VbdInfo>(this.#place, {
      method: 'POST',
      path: '/vbds',
      body,
      timeoutMs: CONTROL_LIMIT_MS,
    });
    this.#deeds.attaches += 1;
    return vbd;
  }

  #info(): Promise<BusInfo> {
    return showBus(this.#place, { timeoutMs: CONTROL_LIMIT_MS });
  }

  async #kill(): Promise<void> {
    const { serverPid, restarts } = await this.#info();
    if (serverPid === null) throw new Error('there is no server');
    const killedMs = performance.now();
    process.kill(serverPid, 'SIGKILL');
    this.#deeds.kills += 1;
    await this.#settled(restarts + 1);
    this.#mostMs = Math.max(SHORT_MS, 3 * (performance.now() - killedMs));
  }

  async #upgrade(): Promise<void> {
    await askBus(this.#place, { method: 'POST', path: '/upgrade', body: {}, timeoutMs: CONTROL_LIMIT_MS });
    this.#deeds.upgrades += 1;
  }

  /** Stops the server for less time than its keeper allows. */
  async #halt(): Promise<void> {
    const { serverPid } = await this.#info();
    if (serverPid === null) throw new Error('there is no server');
    process.kill(serverPid, 'SIGSTOP');
    this.#deeds.stops += 1;
    await delay(500);
    process.kill(serverPid, 'SIGCONT');
  }

  /** Waits for the next server; until the next disturbance fio makes it answer requests. */
  async #settled(restarts: number): Promise<void> {
    const isSettled = async (): Promise<boolean> => {
      const info = await this.#info();
      if (info.state === 'failed') throw new Error('the bus was given up');
      return info.state === 'running' && info.restarts >= restarts;
    };
    if (await until(isSettled, { timeoutMs: RESTART_LIMIT_MS, everyMs: 20 })) return;
    throw new Error(`no new server within ${RESTART_LIMIT_MS / 1000} s`);
  }
}
