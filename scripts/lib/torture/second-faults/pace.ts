/**
 * Measures how slow the machine is now, so that limits mean the same on a busy machine: compares the time of a command
 * that uses no bus with its time on a quiet machine.
 */
import { execFile } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

/** `fusetap --version` on a quiet machine takes less than half of this */
const QUIET_MS = 400;
const EVERY_MS = 3_000;
const REMEMBERED = 4;

export class Pace {
  readonly #cli: string;
  readonly #times: number[] = [];

  constructor(cli: string) {
    this.#cli = cli;
  }

  /** A limit for this machine, at least the limit for a quiet one. */
  scaled(ms: number): number {
    return Math.round(ms * Math.max(1, ...this.#times.map((time) => time / QUIET_MS)));
  }

  async measure(): Promise<void> {
    const began = performance.now();
    await promisify(execFile)(process.execPath, [this.#cli, '--version']);
    this.#times.push(performance.now() - began);
    if (this.#times.length > REMEMBERED) this.#times.shift();
  }

  async keepMeasuring(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await this.measure();
      await delay(EVERY_MS);
    }
  }
}
