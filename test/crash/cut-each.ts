/**
 * Cuts the power in a situation, and shows that an attach finds what was flushed:
 *
 *      attach ─► situation ─► power cut after p calls: some later calls are lost ─► attach: repair ─► content ─► judge
 *                                                                                    └─ power cut again in this one
 *
 * A seed chooses the order of calls that are made at the same time, p, and what is lost. So a seed repeats a trial.
 */
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { CrashFault, compareDisk, LoggedClient } from './client.js';
import { Expectation } from './expectation.js';
import { shapeOf } from './kill-each-call.js';
import { Life } from './life.js';
import { ordersOf } from './orders.js';
import { cutPower } from './power-cut.js';
import { AFTERMATH, mix, type Situation } from './situations.js';
import { SparseBytes } from './sparse-bytes.js';
import { type Judge, open, repair, type Subject } from './subject.js';
import { type Call, copyFiles, describeCall, type Files } from './tape.js';

/** so many orders of each situation are tried */
const ORDERS = 4;
/** one of so many trials cuts the power again */
const AGAIN = 4;

/** A situation that was recorded to its end. */
interface Recording {
  readonly start: Files;
  readonly calls: readonly Call[];
  readonly log: Expectation;
}

export interface CutOptions {
  /** asked for one of `every` trials, beside the judge of the subject */
  readonly second?: { readonly judge: Judge; readonly every: number };
}

/** The trials of one situation: the recordings are made once for each order. */
export class PowerCuts {
  readonly #subject: Subject;
  readonly #situation: Situation;
  readonly #options: CutOptions;
  readonly #recordings = new Map<number, Promise<Recording>>();

  constructor(subject: Subject, situation: Situation, options: CutOptions = {}) {
    this.#subject = subject;
    this.#situation = situation;
    this.#options = options;
  }

  /** @throws CrashFault that says what is lost, and the seed */
  async trial(seed: number): Promise<void> {
    const random = new Random(mix(seed));
    const told: string[] = [];
    try {
      const recording = await this.#recording(random.below(ORDERS));
      const { files, log } = await this.#cut(recording, random, told);
      const again = await this.#attach(files, log, random);
      if (!random.isOneIn(AGAIN)) return;
      told.push('again');
      const second = await this.#cut(again, random, told);
      await this.#attach(second.files, second.log, random);
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      const where = `${this.#subject.name}: ${this.#situation.name}, seed ${seed}: power cut ${told.join(', ')}`;
      throw new CrashFault(`${where}: ${what}`, { cause: error });
    }
  }

  #recording(order: number): Promise<Recording> {
    const found = this.#recordings.get(order) ?? this.#record(order);
    this.#recordings.set(order, found);
    return found;
  }

  async #record(order: number): Promise<Recording> {
    const subject = this.#subject;
    const start = copyFiles(subject.files);
    const life = new Life({ files: copyFiles(start), order: ordersOf(order) });
    await repair(life, subject);
    const log = new Expectation(subject.content, () => life.tape.length, subject);
    const disk = await open(life, subject);
    await this.#situation.run(new LoggedClient(disk, log), shapeOf(subject));
    await disk.close();
    return { start, calls: life.tape, log };
  }

  /** @returns the files after the cut, and what the disk may contain then */
  async #cut(recording: Recording, random: Random, told: string[]): Promise<CutResult> {
    const { start, calls, log } = recording;
    const count = random.below(calls.length + 1);
    const { files, text } = cutPower(start, calls.slice(0, count), random);
    const last = calls[count - 1];
    told.push(`after call ${count} (${last === undefined ? 'none' : describeCall(last)}), ${text}`);
    const compare = (content: Buffer, offset?: number): string | null => log.compare(content, offset, { calls: count });
    return { files, log: { size: log.size, compare } };
  }

  /** Attaches, compares, and uses the disk. @returns the recording of that, for the next cut */
  async #attach(files: Files, allowed: CutResult['log'], random: Random): Promise<Recording> {
    const subject = this.#subject;
    const start = copyFiles(files);
    const life = new Life({ files });
    await repair(life, subject);
    const disk = await open(life, subject);
    const content = Buffer.alloc(subject.content.size);
    await compareDisk(disk, allowed, 'the next attach', content);
    // what is read after the cut is durable: the page cache was lost
    const log = new Expectation(SparseBytes.from(content), () => life.tape.length, subject);
    await AFTERMATH.run(new LoggedClient(disk, log), shapeOf(subject));
    await compareDisk(disk, log, AFTERMATH.name);
    await disk.close();
    await this.#judge(files, random);
    return { start, calls: life.tape, log };
  }

  async #judge(files: Files, random: Random): Promise<void> {
    const past = { wasKilled: this.#subject.driver.repair === undefined };
    const faults = [...(await this.#subject.judge(files, past))];
    const { second } = this.#options;
    if (second !== undefined && random.isOneIn(second.every)) faults.push(...(await second.judge(files, past)));
    if (faults.length > 0) throw new CrashFault(`the judge: ${faults.join('; ')}`);
  }
}

interface CutResult {
  readonly files: Files;
  readonly log: Pick<Expectation, 'size' | 'compare'>;
}
