/**
 * Lets each call of a situation fail, once, and shows that the server goes on: what failed may be there or not, the rest
 * is exact, and a request that is sent again succeeds.
 *
 *      attach ─► situation, call n fails ─► content ─► requests again ─► content ─► close or kill ─► next attach ─► judge
 */
import { constants } from 'node:os';
import type { Disk } from '../../drivers/disk.js';
import { FusetapError } from '../../drivers/errors.js';
import { CrashFault, compareDisk, LoggedClient } from './client.js';
import { Expectation } from './expectation.js';
import { shapeOf } from './kill-each-call.js';
import { Life, type LifeOptions } from './life.js';
import { AFTERMATH, type Situation } from './situations.js';
import { open, repair, type Subject } from './subject.js';
import { copyFiles, describeCall, type Files } from './tape.js';

const { EIO, ENOSPC } = constants.errno;

/** @returns how many calls failed. @throws CrashFault */
export async function failAtEachCall(subject: Subject, situation: Situation): Promise<number> {
  for (let at = 1; ; at++) {
    for (const errno of [EIO, ENOSPC]) {
      const isKilled = at % 2 === 1;
      if (!(await new Trial(subject, situation, { at, errno, isKilled }).run())) return at - 1;
    }
  }
}

interface Way {
  readonly at: number;
  readonly errno: number;
  /** the server is killed afterwards; else it closes the disk */
  readonly isKilled: boolean;
}

class Trial {
  readonly #subject: Subject;
  readonly #situation: Situation;
  readonly #way: Way;
  readonly #files: Files;
  readonly #log: Expectation;
  #life: Life;

  constructor(subject: Subject, situation: Situation, way: Way) {
    this.#subject = subject;
    this.#situation = situation;
    this.#way = way;
    this.#files = copyFiles(subject.files);
    this.#life = new Life({ files: this.#files });
    this.#log = new Expectation(subject.content, () => this.#life.tape.length);
  }

  /** @returns false if the call that was to fail was not reached */
  async run(): Promise<boolean> {
    try {
      await repair(this.#life, this.#subject);
      if (!(await this.#failing())) return false;
      await this.#attachAnew();
      return true;
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      const { at, errno, isKilled } = this.#way;
      const calls = this.#life.tape.slice(-6).map(describeCall).join(', ');
      const how = `call ${at} fails with errno ${errno}${isKilled ? ', then a kill' : ''}`;
      const where = `${this.#subject.name}: ${this.#situation.name}: ${how}`;
      throw new CrashFault(`${where}: ${what}; the last calls: ${calls || 'none'}`, { cause: error });
    }
  }

  async #failing(): Promise<boolean> {
    const { at, errno, isKilled } = this.#way;
    const disk = await this.#begin({ fault: { at, errno } });
    const client = new LoggedClient(disk, this.#log, { canFail: true });
    await this.#situation.run(client, shapeOf(this.#subject));
    const isReached = this.#life.hasFailed;
    await this.#compare(disk, 'after the error');
    await client.resend();
    if (isReached && this.#log.waiting.length > 0) throw new CrashFault('a request fails again');
    await this.#compare(disk, 'the requests were sent again');
    if (isKilled) this.#life.kill();
    else await disk.close().catch(onlyExpected);
    return isReached || this.#life.hasFailed;
  }

  async #attachAnew(): Promise<void> {
    await repair(new Life({ files: this.#files }), this.#subject);
    const disk = await this.#begin({});
    await this.#compare(disk, 'a new attach');
    await AFTERMATH.run(new LoggedClient(disk, this.#log), shapeOf(this.#subject));
    await this.#compare(disk, AFTERMATH.name);
    await disk.close();
    // a change that failed may have left space that nothing uses
    const faults = await this.#subject.judge(this.#files, { wasKilled: true });
    if (faults.length > 0) throw new CrashFault(`the judge: ${faults.join('; ')}`);
  }

  async #begin(options: Pick<LifeOptions, 'fault'>): Promise<Disk> {
    this.#life = new Life({ files: this.#files, ...options });
    return await open(this.#life, this.#subject);
  }

  async #compare(disk: Disk, when: string): Promise<void> {
    await compareDisk(disk, this.#log, when);
  }
}

function onlyExpected(error: unknown): void {
  if (!(error instanceof FusetapError)) throw error;
}
