/**
 * Kills the server at each call of a situation, and shows that the next server goes on as if nothing had happened:
 *
 *      attach ─► situation ─► killed at call n ─► next server: content ─► requests again ─► aftermath ─► close ─► judge
 *                                                  └─ killed too, at call m ─► next server: the same
 *      then an attach anew: repair ─► content ─► close ─► judge
 */
import type { Disk } from '../../drivers/disk.js';
import { type Client, CrashFault, compareDisk, LoggedClient } from './client.js';
import { Expectation } from './expectation.js';
import { type Ending, Life, type Reach } from './life.js';
import { ordersOf } from './orders.js';
import { AFTERMATH, type Situation } from './situations.js';
import { open, repair, type Subject } from './subject.js';
import { copyFiles, describeCall, type Files } from './tape.js';

export interface KillOptions {
  /** seeds of orders of the calls that are made at the same time; 0: the order in which they are made; default [0] */
  readonly orders?: readonly number[];
  /** default: all */
  readonly reaches?: readonly Reach[];
  /** at each how many-th call of the second life it is killed too; 0: never; default 1 */
  readonly secondKills?: number;
}

/** What was done, for a report. */
export interface KillCount {
  kills: number;
  secondKills: number;
}

const REACHES: readonly Reach[] = ['done', 'unreported', 'torn'];
/** a situation with more calls is a mistake of the driver: it never ends */
const MOST_CALLS = 20_000;

/** @throws CrashFault that says what is lost, and where the server was killed */
export async function killAtEachCall(
  subject: Subject,
  situation: Situation,
  { orders = [0], reaches = REACHES, secondKills = 1 }: KillOptions = {},
): Promise<KillCount> {
  const count: KillCount = { kills: 0, secondKills: 0 };
  for (const order of orders) {
    for (const reach of reaches) {
      for (let at = reach === 'done' ? 0 : 1; ; at++) {
        const scene = { subject, situation, order, count };
        const trial = new Trial(scene, { at, reach });
        if (!(await trial.run())) break;
        for (let second = 1; secondKills > 0; second += secondKills) {
          if (!(await new Trial(scene, { at, reach }, { at: second, reach }).run())) break;
        }
        if (at > MOST_CALLS) throw new CrashFault(`${situation.name}: more than ${MOST_CALLS} calls`);
      }
    }
  }
  return count;
}

interface Scene {
  readonly subject: Subject;
  readonly situation: Situation;
  readonly order: number;
  readonly count: KillCount;
}

interface Server {
  readonly life: Life;
  readonly disk: Disk;
}

/**
 * One run of a situation, with one kill or two. If the number of the call is odd, the next server has opened the disk
 * before the situation, as a server does that takes the place of another: it must not rely on what it saw then.
 */
class Trial {
  readonly #scene: Scene;
  readonly #first: Ending;
  readonly #second: Ending | undefined;
  readonly #files: Files;
  readonly #log: Expectation;
  #life: Life;
  #successor: Server | null = null;

  constructor(scene: Scene, first: Ending, second?: Ending) {
    this.#scene = scene;
    this.#first = first;
    this.#second = second;
    this.#files = copyFiles(scene.subject.files);
    this.#life = this.#begin();
    this.#log = new Expectation(scene.subject.content, () => this.#life.tape.length);
  }

  /** @returns false if the last kill came to nothing, because all was done before */
  async run(): Promise<boolean> {
    try {
      await repair(this.#life, this.#scene.subject);
      if (!(await this.#firstLife())) return false;
      this.#scene.count.kills++;
      if (this.#second !== undefined) {
        if (!(await this.#secondLife(this.#second))) return false;
        this.#scene.count.secondKills++;
      }
      await this.#lastLife();
      await this.#attachAnew();
      return true;
    } catch (error) {
      throw this.#located(error);
    }
  }

  /** @returns whether the server was killed */
  async #firstLife(): Promise<boolean> {
    const { subject, situation } = this.#scene;
    this.#life = this.#begin(this.#first);
    const disk = await open(this.#life, subject);
    if (this.#first.at % 2 === 1) this.#successor = await this.#open(this.#second);
    return await this.#isKilledIn(async () => {
      await situation.run(new LoggedClient(disk, this.#log), shapeOf(subject));
      await disk.close();
    });
  }

  /** The second server gets the requests again, and is killed, too. */
  async #secondLife(ending: Ending): Promise<boolean> {
    const disk = await this.#succeed(ending);
    return await this.#isKilledIn(async () => {
      await new LoggedClient(disk, this.#log).resend();
      await disk.close();
    });
  }

  async #lastLife(): Promise<void> {
    await this.#readOnly();
    const disk = await this.#succeed();
    await this.#compare(disk, 'the next server');
    const client = new LoggedClient(disk, this.#log);
    await client.resend();
    await this.#compare(disk, 'the requests were sent again');
    await this.#afterwards(client, disk);
    await disk.close();
    await this.#judge(true);
  }

  /** A new attach repairs what the kill has left. */
  async #attachAnew(): Promise<void> {
    const { subject } = this.#scene;
    this.#life = this.#begin();
    await repair(this.#life, subject);
    const disk = await open(this.#life, subject);
    await this.#compare(disk, 'a new attach');
    await disk.close();
    await this.#judge(subject.driver.repair === undefined);
  }

  /** The next server, which may have opened the disk already. */
  async #succeed(ending?: Ending): Promise<Disk> {
    const { life, disk } = this.#successor ?? (await this.#open(ending));
    this.#successor = null;
    this.#life = life;
    return disk;
  }

  async #open(ending?: Ending): Promise<Server> {
    const life = this.#begin(ending);
    return { life, disk: await open(life, this.#scene.subject) };
  }

  /** What was killed can be attached for reading, which changes nothing. */
  async #readOnly(): Promise<void> {
    const life = this.#begin();
    const disk = await open(life, this.#scene.subject, { readOnly: true });
    await this.#compare(disk, 'an attach for reading');
    await disk.close();
    if (life.tape.length > 0) throw new CrashFault('an attach for reading changes a file');
  }

  async #afterwards(client: Client, disk: Disk): Promise<void> {
    await AFTERMATH.run(client, shapeOf(this.#scene.subject));
    await this.#compare(disk, AFTERMATH.name);
  }

  async #isKilledIn(work: () => Promise<void>): Promise<boolean> {
    const over = work().then(() => false);
    const died = this.#life.died.then(() => true);
    return await Promise.race([over, died]);
  }

  async #compare(disk: Disk, when: string): Promise<void> {
    await compareDisk(disk, this.#log, when);
  }

  async #judge(wasKilled: boolean): Promise<void> {
    const faults = await this.#scene.subject.judge(this.#files, { wasKilled });
    if (faults.length === 0) return;
    throw new CrashFault(`the judge, ${wasKilled ? 'after the kill' : 'after a repair'}: ${faults.join('; ')}`);
  }

  #begin(ending?: Ending): Life {
    return new Life({ files: this.#files, order: ordersOf(this.#scene.order), ...(ending && { ending }) });
  }

  #located(error: unknown): Error {
    const { subject, situation, order } = this.#scene;
    const kills = [this.#first, this.#second].flatMap((ending) => {
      return ending === undefined ? [] : [`killed at call ${ending.at} (${ending.reach})`];
    });
    const calls = this.#life.tape.slice(-6).map(describeCall).join(', ');
    const where = `${subject.name}: ${situation.name}: ${kills.join(', then ')}${order === 0 ? '' : `, order ${order}`}`;
    const what = error instanceof Error ? error.message : String(error);
    return new CrashFault(`${where}: ${what}; the last calls: ${calls || 'none'}`, { cause: error });
  }
}

export function shapeOf({ content, unitBytes, tableBytes }: Subject): {
  readonly size: number;
  readonly unitBytes: number;
  readonly tableBytes: number;
} {
  return { size: content.size, unitBytes, tableBytes };
}
