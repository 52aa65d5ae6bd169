/**
 * Memories that several vbds share: one for each image, filled once, gone with its last user.
 *
 * The keeper holds the memfd; the driver fills it in the server. While one attach fills it, others of the same image
 * wait for it and then share.
 */
import { closeSync } from 'node:fs';
import type { Json } from '../../drivers/driver.js';
import { memfdCreate } from '../../system/libc.js';

export interface SharedMemory {
  /** device and inode of the image, or the name it is shared under */
  readonly key: string;
  readonly fd: number;
  readonly state: Json;
  users: number;
}

/** Fills a memfd; resolves to the state that the driver wants back. */
export type Fill = (memoryFd: number) => Promise<Json>;

export class Memories {
  readonly #byKey = new Map<string, Promise<SharedMemory>>();

  /** The memory of that key, filled now if nobody has it. Each call must be paired with `release`. */
  async acquire(key: string, fill: Fill): Promise<SharedMemory> {
    for (;;) {
      const held = this.#byKey.get(key);
      if (held === undefined) break;
      const memory = await held.catch(() => null);
      // the attach that was filling it failed: the next in line tries itself
      if (memory === null || memory.users === 0) continue;
      memory.users += 1;
      return memory;
    }
    const filling = this.#create(key, fill);
    this.#byKey.set(key, filling);
    try {
      return await filling;
    } catch (error) {
      this.#byKey.delete(key);
      throw error;
    }
  }

  release(memory: SharedMemory): void {
    memory.users -= 1;
    if (memory.users > 0) return;
    this.#byKey.delete(memory.key);
    closeSync(memory.fd);
  }

  async #create(key: string, fill: Fill): Promise<SharedMemory> {
    const fd = memfdCreate('fusetap-ram');
    try {
      return { key, fd, state: await fill(fd), users: 1 };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
}
