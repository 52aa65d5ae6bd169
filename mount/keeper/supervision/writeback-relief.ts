/**
 * Keeps a file system on a vbd from waiting for itself.
 *
 *      write-back of a mounted file system ──► loop device ──► vbd ──► server writes the image ──► "too much is dirty"
 *            ▲                                                                                             │
 *            └───────────────────────── waits for the write-back that waits for it ◄───────────────────────┘
 *
 * A process that writes while more is dirty than may be (vm.dirty_bytes) has to wait until it is less
 * (balance_dirty_pages). What is dirty may be just what waits for the server. PR_SET_IO_FLUSHER spares a process that, but
 * takes CAP_SYS_RESOURCE. Without it there is one way out, which the kernel leaves to every writer: it lets go where next
 * to nothing of the disk below is dirty. So the disk below is flushed by somebody who does not write: the keeper.
 *
 * Nothing is done unless a request takes long and a thread of the server is seen to wait for just that.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { writeBackBelow } from '../../../system/libc.js';
import { logEvent } from '../../runtime/log.js';

/** a request that is under way at two looks takes long */
const LOOK_MS = 1_000;
/** while it goes on: a thread is made to wait anew with every few hundred kilobytes */
const RELIEF_MS = 10;
/** relief ends when nobody was seen to wait for so long */
const CALM_MS = 2_000;

export interface RelievedBus {
  /** the requests that the server works on */
  inFlight(): readonly number[];
  serverPid(): number | null;
  /** the images that it writes, one for each disk below */
  images(): readonly WrittenImage[];
  /** the server shares the open file of the image: what this flush was told, none of its own will be */
  flushFailed(image: WrittenImage, errno: number): void;
}

export interface WrittenImage {
  readonly fd: number;
  readonly kind: 'file' | 'block';
}

export class WritebackRelief {
  readonly #bus: RelievedBus;
  readonly #timer: NodeJS.Timeout;
  #last: ReadonlySet<number> = new Set();
  #relieving: Promise<void> | null = null;

  constructor(bus: RelievedBus) {
    this.#bus = bus;
    this.#timer = setInterval(() => this.#look(), LOOK_MS).unref();
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const now = this.#bus.inFlight();
    const takesLong = now.some((unique) => this.#last.has(unique));
    this.#last = new Set(now);
    if (!takesLong || this.#relieving !== null || !this.#isThrottled()) return;
    this.#relieving = this.#relieve().finally(() => {
      this.#relieving = null;
    });
  }

  async #relieve(): Promise<void> {
    const begun = performance.now();
    let seen = begun;
    for (let now = begun; now - seen < CALM_MS; now = performance.now()) {
      if (this.#isThrottled()) {
        seen = now;
        await Promise.all(this.#bus.images().map((image) => this.#flushBelow(image)));
      }
      await new Promise((resolve) => setTimeout(resolve, RELIEF_MS).unref());
    }
    logEvent({ event: 'relieved', ms: Math.round(seen - begun) });
  }

  async #flushBelow(image: WrittenImage): Promise<void> {
    const result = await writeBackBelow(image.fd, image.kind === 'block');
    if (result < 0) this.#bus.flushFailed(image, -result);
  }

  #isThrottled(): boolean {
    const pid = this.#bus.serverPid();
    return pid !== null && waitsToWrite(pid);
  }
}

/** Whether a thread of a process is made to wait because too much is dirty. */
export function waitsToWrite(pid: number): boolean {
  try {
    const tasks = `/proc/${pid}/task`;
    return readdirSync(tasks).some((tid) => readFileSync(`${tasks}/${tid}/wchan`, 'latin1').startsWith(THROTTLED));
  } catch {
    // it has just ended
    return false;
  }
}
const THROTTLED = 'balance_dirty_pages';
