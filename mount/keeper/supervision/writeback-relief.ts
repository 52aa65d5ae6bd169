/**
 * Keeps a file system on a vbd from waiting for itself.
 *
 *      write-back of a mounted file system ──► loop device ──► vbd ──► server writes the image ──► "too much is dirty"
 *            ▲                                                                                             │
 *            └───────────────────────── waits for the write-back that waits for it ◄───────────────────────┘
 *
 * While too many pages are dirty (vm.dirty_bytes), the kernel makes every process wait that writes
 * (balance_dirty_pages). The dirty pages may be those that wait for the server. PR_SET_IO_FLUSHER exempts a process,
 * but needs CAP_SYS_RESOURCE. Without it one way is left: the kernel does not make a writer wait while the disk that it
 * writes to has almost no dirty pages. So the keeper, which writes nothing, flushes the disks below the images.
 *
 * It does so only when a request takes long and a thread of the server is seen waiting in that function.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { writeBackBelow } from '../../../system/libc.js';
import { logEvent } from '../../runtime/log.js';

/** a request that is under way at two looks in a row takes long */
const LOOK_MS = 1_000;
/** pause between flushes: the kernel makes a thread wait again after every few hundred kilobytes */
const RELIEF_MS = 10;
/** relief ends when no thread was seen waiting for this time */
const CALM_MS = 2_000;

export interface RelievedBus {
  /** the requests that the server works on now */
  inFlight(): readonly number[];
  serverPid(): number | null;
  /** the images that it writes to, one for each disk below */
  images(): readonly WrittenImage[];
  /** the server shares the open file description, and the kernel reports an error once: the server will not see it */
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
      await delay(RELIEF_MS, undefined, { ref: false });
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

/** Whether the kernel makes a thread of the process wait because too many pages are dirty. */
export function waitsToWrite(pid: number): boolean {
  try {
    const tasks = `/proc/${pid}/task`;
    return readdirSync(tasks).some((tid) => readFileSync(`${tasks}/${tid}/wchan`, 'latin1').startsWith(THROTTLED));
  } catch {
    // it has just exited
    return false;
  }
}
const THROTTLED = 'balance_dirty_pages';
