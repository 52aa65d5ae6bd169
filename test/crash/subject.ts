/** What a harness puts under test: a driver, an image for it, and the judge of the image. */
import type { Disk } from '../../drivers/disk.js';
import { frontDisk } from '../../drivers/disk.js';
import type { Driver, Given } from '../../drivers/driver.js';
import { gated } from '../../drivers/filters/gated.js';
import { roleOf } from '../../drivers/graph/plan.js';
import { checkDisk } from '../../drivers/third-party.js';
import { CrashFault } from './client.js';
import type { Life } from './life.js';
import type { SparseBytes } from './sparse-bytes.js';
import type { Files } from './tape.js';

/** What happened to an image before it is judged. */
export interface Past {
  /** a server was killed since the last repair, so some loss is allowed: space that nothing uses */
  readonly wasKilled: boolean;
}

/** Finds the faults of an image, one sentence each. */
export type Judge = (files: Files, past: Past) => Promise<readonly string[]>;

export interface Subject {
  readonly name: string;
  readonly driver: Driver;
  readonly options?: Readonly<Record<string, string>>;
  /** by the roles of the driver; they are not changed */
  readonly files: Files;
  /** what the disk shows at first */
  readonly content: SparseBytes;
  /** bytes that are allocated together: a cluster or a block */
  readonly unitBytes: number;
  /** bytes of the disk that one table describes: a multiple of the unit */
  readonly tableBytes: number;
  /** see Expectation; default: false */
  readonly maybeZeros?: boolean;
  readonly judge: Judge;
}

/** What is opened. */
export type Openable = Pick<Subject, 'driver' | 'options' | 'files'>;

/** What is below the driver in a life of a server. */
function givenIn(life: Life, { driver, files }: Openable, readOnly: boolean): Given {
  const disks = Object.keys(files).map((role) => {
    const isRead = readOnly || roleOf(driver, role)?.access === 'read';
    return [role, life.disk(role, { readOnly: isRead })] as const;
  });
  return { files: {}, disks: Object.fromEntries(disks) };
}

/** Finishes what a crash left behind, as an attach with mode w does. */
export async function repair(life: Life, subject: Openable): Promise<void> {
  const { driver, options = {} } = subject;
  if (driver.repair === undefined) return;
  const { signal } = new AbortController();
  const given = givenIn(life, subject, false);
  await driver.repair({ ...given, options, path: '/image', signal, progress: () => {} });
}

/**
 * Opens the disk, as a server does. The first request activates it.
 * @throws CrashFault if `open` changes a file
 */
export async function open(life: Life, subject: Openable, { readOnly = false } = {}): Promise<Disk> {
  const { driver, options = {} } = subject;
  const before = life.tape.length;
  const given = givenIn(life, subject, readOnly);
  const raw = await driver.open({ ...given, memory: null, state: null, readOnly, options, isRepaired: !readOnly });
  if (life.tape.length > before) throw new CrashFault('open changes a file: only activate and later calls may');
  return frontDisk(gated(checkDisk(raw, driver.name)), { readOnly });
}
