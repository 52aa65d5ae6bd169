/**
 * Calls of this process on file systems that may hang.
 *
 * A call that hangs blocks one of the few threads that all asynchronous calls share, and nothing can end it. So there
 * is never more than one such call under way per file system, and callers wait for it at most LIMIT_MS. As long as a
 * call hangs, further calls on the file system are refused. File systems with a server (NFS, FUSE, …) are first asked
 * by another process.
 *
 *      askFirst ──► stat in the side shell ──► an answer ──► withinLimit: open, readlink, … by this process
 *                                        └──► none in time: refused, and so are further calls until the stat returns
 */
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { answersFromMemory, type Location } from '../../system/proc.js';
import { type SideShell, shellWord } from '../../system/side-shell.js';
import { within } from '../../system/within.js';

const LIMIT_MS = 8_000;

/** File systems that have no disk and no server that could hang. */
const WITHOUT_DISK: ReadonlySet<string> = new Set('devtmpfs proc sysfs squashfs rootfs hugetlbfs'.split(' '));

interface Call {
  readonly ended: Promise<unknown>;
  readonly sinceMs: number;
}

/** The target of a call: the path as the user gave it, and the file system that must answer. */
export interface Target {
  readonly path: string;
  readonly at: Location | null;
}

export class Answering {
  readonly #shell: SideShell;
  /** by file system */
  readonly #underWay = new Map<string, Call>();

  constructor(shell: SideShell) {
    this.#shell = shell;
  }

  /**
   * Lets another process ask the file system for a file, if the file system may hang.
   * @param file may contain symbolic links to other file systems
   * @throws FusetapError BUSY if it does not answer
   */
  async askFirst(file: string, target: Target): Promise<void> {
    const { at } = target;
    if (at === null || answersFromMemory(at.type) || WITHOUT_DISK.has(at.type)) return;
    // any output is an answer, also an error
    const ask = `stat -L $fresh -c %i -- ${shellWord(file)}; echo`;
    await this.withinLimit(target, () => this.#shell.run(`(${ask}) 2>&1 | head -n 1 | head -c 1000`));
  }

  /**
   * Makes a call on a file system.
   * @param discard is given a result that comes too late
   * @throws FusetapError BUSY if the file system does not answer; what the call throws
   */
  async withinLimit<Result>(
    target: Target,
    call: () => Promise<Result>,
    discard: (result: Result) => unknown = () => {},
  ): Promise<Result> {
    const dev = target.at?.dev ?? '';
    for (let other = this.#underWay.get(dev); other !== undefined; other = this.#underWay.get(dev)) {
      if (!(await hasEnded(other))) throw notAnswering(target, other);
    }
    const result = call();
    const own: Call = { ended: result.then(ignore, ignore), sinceMs: performance.now() };
    this.#underWay.set(dev, own);
    void own.ended.then(() => this.#underWay.delete(dev));
    if (await hasEnded(own)) return await result;
    result.then(discard).catch((error: unknown) => console.error(`late, of ${target.path}:`, error));
    throw notAnswering(target, own);
  }
}

const ignore = (): void => {};

/** Resolves to true when the call has ended, to false when its LIMIT_MS are over. */
async function hasEnded({ ended, sinceMs }: Call): Promise<boolean> {
  const restMs = Math.max(0, sinceMs + LIMIT_MS - performance.now());
  return await within(
    ended.then(() => true),
    restMs,
    false,
  );
}

function notAnswering({ path, at }: Target, { sinceMs }: Call): FusetapError {
  const seconds = Math.round((performance.now() - sinceMs) / 1000);
  const where = at === null ? 'its file system' : `its file system (${at.type}, mounted on ${at.mountpoint})`;
  return new FusetapError('BUSY', `${named(path)}: ${where} has not answered for ${seconds} s`, {
    hint: 'try again when it answers; nothing was changed',
    path,
  });
}
