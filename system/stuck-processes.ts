/**
 * Finds stuck processes: reading their files in /proc blocks the reader.
 *
 * execve(2) closes close-on-exec descriptors while it has a lock on the process, and closing a file on FUSE or NFS
 * waits for the file system. If the file system hangs, a process that reads most files of /proc/PID (stat, exe, cwd,
 * ns, maps, the links in fd) hangs too. So a helper probes all processes before this process reads their files:
 *
 *      helper probes all but the known stuck ones ──► answer ──► all others can be read
 *                        └──► no answer ──► in groups ──► one by one ──► no answer: stuck, until that answer comes
 *
 * A probe that does not end costs a process of the helper, and none of this process's threads.
 */
import { readdirSync } from 'node:fs';
import { SideShell } from './side-shell.js';
import { within } from './within.js';

const PATIENCE_MS = 500;
const GROUP_SIZE = 24;

/** The helper's probe of the process in $p: the shell does it without starting a program. */
const PROBE = '[ -e "/proc/$p/ns/mnt" ]';

export class StuckProcesses {
  readonly #shell: SideShell;
  readonly #stuck = new Set<number>();
  #finding: Promise<unknown> = Promise.resolve();

  constructor(shell: SideShell) {
    this.#shell = shell;
  }

  /** The pids of the processes that are stuck now. */
  async find(): Promise<ReadonlySet<number>> {
    // the shell is unref'ed: the timer keeps this process alive meanwhile
    const alive = setInterval(() => {}, PATIENCE_MS);
    try {
      const finding = this.#finding.then(() => this.#findNew());
      this.#finding = finding;
      await finding;
      return this.#stuck;
    } finally {
      clearInterval(alive);
    }
  }

  async #findNew(): Promise<void> {
    const known = ` ${[...this.#stuck].join(' ')} `;
    const each = `p=\${p#/proc/}; case '${known}' in *" $p "*) ;; *) ${PROBE};; esac`;
    if (await this.#answers(this.#shell.run(`for p in /proc/[0-9]*; do ${each}; done`))) return;
    const pids = readdirSync('/proc')
      .map(Number)
      .filter((pid) => pid > 0 && !this.#stuck.has(pid));
    const groups = Array.from({ length: Math.ceil(pids.length / GROUP_SIZE) }, (_, i) =>
      pids.slice(i * GROUP_SIZE, (i + 1) * GROUP_SIZE),
    );
    await Promise.all(groups.map((group) => this.#findAmong(group)));
  }

  async #findAmong(pids: readonly number[]): Promise<void> {
    if (await this.#answers(this.#probe(pids))) return;
    await Promise.all(pids.map((pid) => this.#findOut(pid)));
  }

  async #findOut(pid: number): Promise<void> {
    const answer = this.#probe([pid]);
    if (await this.#answers(answer)) return;
    this.#stuck.add(pid);
    void answer.then(() => this.#stuck.delete(pid));
  }

  #probe(pids: readonly number[]): Promise<unknown> {
    return this.#shell.run(`for p in ${pids.join(' ')}; do ${PROBE}; done`);
  }

  /**
   * Whether an answer comes in time: within PATIENCE_MS, or within PATIENCE_MS after the shell answered a later
   * question that never blocks.
   */
  async #answers(answer: Promise<unknown>): Promise<boolean> {
    const isIn = (): Promise<boolean> =>
      within(
        answer.then(() => true),
        PATIENCE_MS,
        false,
      );
    if (await isIn()) return true;
    // on a busy machine both answers are late
    await this.#shell.run(':');
    return isIn();
  }
}

let stuck: StuckProcesses | null = null;

/** Makes `shell` the helper. Call it before this process opens files that its children should not inherit. */
export function probeWith(shell: SideShell): void {
  stuck = new StuckProcesses(shell);
}

/** The pids of the processes whose files must not be read now. */
export function findStuck(): Promise<ReadonlySet<number>> {
  stuck ??= new StuckProcesses(new SideShell());
  return stuck.find();
}
