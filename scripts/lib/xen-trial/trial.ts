/** Runs scenarios in the machine, one after the other, and makes the rows of the table. */
import type { Report } from './protocol.js';
import type { Scenario } from './scenarios.js';
import type { Row } from './table.js';

/** What is asked of the machine; Machine keeps it. */
export interface Agent {
  /** Names the scenario that the agent begins. */
  order(name: string): void;
  /** @returns what the agent says next; null if the machine has ended, or after the time limit */
  next(limitMs: number): Promise<Report | null>;
  kill(): Promise<void>;
}

export interface Trial {
  readonly scenarios: readonly Scenario[];
  /** starts the machine; called again for a scenario that shuts it down */
  readonly boot: () => Agent;
  /** the whole run, in ms of performance.now() */
  readonly deadline: number;
  /** one line about what is going on */
  readonly say: (text: string) => void;
}

export interface Outcome {
  readonly rows: readonly Row[];
  readonly about: string;
}

interface Ending {
  readonly status: number;
  readonly seconds: number;
}

/** how long a dom0 may take to boot, and to shut down */
const BOOT_LIMIT_MS = 30 * 60_000;
/**
 * A scenario has 400 s of the dom0's clock, and then some time to be cleared away (dom0/agent). While a guest works, that clock is
 * several times slower than ours. A dom0 that does not keep to this hangs.
 */
const SCENARIO_LIMIT_MS = 40 * 60_000;
/** the last lines of a scenario that failed, which are printed */
const OUTPUT_LINES = 100;

export class Runner {
  readonly #trial: Trial;
  readonly #rows: Row[] = [];
  #machine: Agent | null = null;
  #about = '';

  constructor(trial: Trial) {
    this.#trial = trial;
  }

  /** The machine is over afterwards, whatever happened. */
  async run(): Promise<Outcome> {
    let answers = await this.#boot();
    let isLost = false;
    const { scenarios, say } = this.#trial;
    for (const scenario of scenarios) {
      if (isLost) answers = await this.#bootAgain();
      isLost = false;
      if (!answers) {
        this.#rows.push({ scenario, result: 'not run', seconds: null });
        continue;
      }
      const ending = await this.#both(scenario);
      isLost = ending === null;
      const result = ending === null ? 'no answer' : ending.status === 0 ? 'ok' : 'failed';
      this.#rows.push({ scenario, result, seconds: ending?.seconds ?? null });
      say(`${scenario.name}: ${result}${ending === null ? '' : `, ${ending.seconds.toFixed(1)} s`}`);
    }
    await this.#machine?.kill();
    return { rows: this.#rows, about: this.#about };
  }

  async #boot(): Promise<boolean> {
    this.#trial.say('booting the dom0, which takes some minutes');
    const begun = performance.now();
    this.#machine = this.#trial.boot();
    const end = Math.min(this.#trial.deadline, begun + BOOT_LIMIT_MS);
    for (;;) {
      const report = await this.#machine.next(end - performance.now());
      if (report === null) {
        this.#trial.say('the dom0 did not boot: its console is in console.log');
        return false;
      }
      if (report.kind === 'about') this.#about = report.text;
      if (report.kind === 'output') this.#trial.say(`dom0: ${report.text}`);
      if (report.kind !== 'ready') continue;
      this.#trial.say(`it has booted, after ${((performance.now() - begun) / 1000).toFixed(0)} s`);
      return true;
    }
  }

  /** After a dom0 that has hung or ended: the scenarios that are left have nothing to do with that. */
  async #bootAgain(): Promise<boolean> {
    await this.#machine?.kill();
    return performance.now() < this.#trial.deadline && (await this.#boot());
  }

  /** A scenario, with its second half after another boot if it has one. */
  async #both(scenario: Scenario): Promise<Ending | null> {
    const first = await this.#one(scenario.name);
    if (scenario.afterBoot === undefined || first === null || first.status !== 0) return first;
    if (!(await this.#shutDown()) || !(await this.#boot())) return null;
    const second = await this.#one(scenario.afterBoot);
    return second && { status: second.status, seconds: first.seconds + second.seconds };
  }

  async #one(name: string): Promise<Ending | null> {
    const { deadline, say } = this.#trial;
    const end = Math.min(deadline, performance.now() + SCENARIO_LIMIT_MS);
    const machine = this.#machine as Agent;
    const output: string[] = [];
    const tell = (why: string): void =>
      say(`${name}: ${why}; its last lines:\n${output.slice(-OUTPUT_LINES).join('\n')}`);
    machine.order(name);
    for (;;) {
      const report = await machine.next(end - performance.now());
      if (report === null) {
        tell('no answer');
        return null;
      }
      if (report.kind === 'output') output.push(`  ${report.text}`);
      if (report.kind !== 'end' || report.name !== name) continue;
      if (report.status !== 0) tell(`exit ${report.status}`);
      return report;
    }
  }

  /** As an administrator does it; the machine switches itself off. */
  async #shutDown(): Promise<boolean> {
    this.#trial.say('shutting the dom0 down');
    const machine = this.#machine as Agent;
    machine.order('poweroff');
    const end = Math.min(this.#trial.deadline, performance.now() + BOOT_LIMIT_MS);
    while ((await machine.next(end - performance.now())) !== null);
    const isOver = performance.now() < end;
    if (!isOver) this.#trial.say('the dom0 did not shut down');
    await machine.kill();
    return isOver;
  }
}
