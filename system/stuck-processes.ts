/**
 * Processes that cannot be looked at, because whoever does waits.
 *
 * execve(2) closes what is marked close-on-exec while it has a lock on the process, and to close a file on FUSE or NFS waits
 * for its file system. Where that hangs, so does whoever reads most of /proc/PID (stat, exe, cwd, ns, maps, the links in fd).
 * So before processes are looked at one after the other, a helper looks at them:
 *
 *      helper: all but those known to be stuck ──► an answer ──► all others are looked at
 *                        └──► none ──► in groups ──► one by one ──► no answer: stuck, until that answer comes
 *
 * A look that does not end costs a process of the helper, and none of this process's threads.
 */
import { readdirSync } from 'node:fs';
import { SideShell } from './side-shell.js';
import { within } from './within.js';

const PATIENCE_MS = 500;
const GROUP_SIZE = 24;

/** What the helper does with each process in $p; a shell that can do it without another program. */
const LOOK = '[ -e "/proc/$p/ns/mnt" ]';

export class StuckProcesses {
  readonly #shell: SideShell;
  readonly #stuck = new Set<number>();
  #finding: Promise<unknown> = Promise.resolve();

  constructor(shell: SideShell) {
    this.#shell = shell;
  }

  /** Those that are stuck now. */
  async find(): Promise<ReadonlySet<number>> {
    // the shell alone does not keep this process from ending
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
    const each = `p=\${p#/proc/}; case '${known}' in *" $p "*) ;; *) ${LOOK};; esac`;
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
    if (await this.#answers(this.#look(pids))) return;
    await Promise.all(pids.map((pid) => this.#findOut(pid)));
  }

  async #findOut(pid: number): Promise<void> {
    const answer = this.#look([pid]);
    if (await this.#answers(answer)) return;
    this.#stuck.add(pid);
    void answer.then(() => this.#stuck.delete(pid));
  }

  #look(pids: readonly number[]): Promise<unknown> {
    return this.#shell.run(`for p in ${pids.join(' ')}; do ${LOOK}; done`);
  }

  /** Whether an answer comes before one to a question that was asked later, and waits for nobody, is old. */
  async #answers(answer: Promise<unknown>): Promise<boolean> {
    const isIn = (): Promise<boolean> =>
      within(
        answer.then(() => true),
        PATIENCE_MS,
        false,
      );
    if (await isIn()) return true;
    // a machine that is busy makes both wait
    await this.#shell.run(':');
    return isIn();
  }
}

let stuck: StuckProcesses | null = null;

/** Has that shell be the helper. To be called before this process has files that a program it starts should not have. */
export function lookWith(shell: SideShell): void {
  stuck = new StuckProcesses(shell);
}

/** The processes that must not be looked at now. */
export function findStuck(): Promise<ReadonlySet<number>> {
  stuck ??= new StuckProcesses(new SideShell());
  return stuck.find();
}
