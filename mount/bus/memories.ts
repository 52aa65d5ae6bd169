/**
 * The ram images that a keeper holds: each a memory that several vbds share, on any bus, filled once, gone with its last
 * user.
 *
 *      look (under the lock) ──► held by anybody, filled: join ──► open its link, publish our own
 *        ▲                 │
 *        └── wait a moment ◄── being copied by somebody
 *                          │
 *                          └──► held by nobody: memfd made, link published ──► measure ──► reserve ──► fill ──► filled
 *
 * The keeper holds the memfd; the driver fills it in the server. Of two that come at once, one copies and the other
 * waits; where the copy fails its link goes, and the next one tries.
 */
import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Json } from '../../drivers/driver.js';
import { memfdCreate } from '../../system/libc.js';
import { MEMORY_PAGE } from '../fuse/memory-growth.js';
import type { OpenedImage } from './open-image.js';
import { accountFor, type RamAccount, refuseAboveLimit } from './ram-images.js';
import {
  cleanLinks,
  linkTarget,
  listLinks,
  memoryName,
  openLink,
  ownLink,
  type RamLink,
  removeLink,
  writeLink,
} from './ram-links.js';
import { withRamLock } from './ram-lock.js';
import { checkJoin, checkNew, imageIdentity, leadsTo, requireSole, shareOfIdentity } from './share-rules.js';

const POLL_MS = 10;
/** credit that nobody uses is back within this time, also from keepers that hardly get to run; see memory-credit.ts */
export const RECALL_MS = 4_000;

/** A memory that this keeper holds. */
export interface SharedMemory {
  /** of the memory, in its name */
  readonly id: string;
  readonly fd: number;
  readonly state: Json;
  readonly sizeBytes: number;
  /** the path it was copied from */
  readonly image: string;
  /** vbds of this keeper */
  users: number;
}

/** Which memory is wanted. */
export interface MemoryWish {
  readonly driver: string;
  /** the name it is shared under; null: by the identity of its image */
  readonly share: string | null;
  /** open; its size may be 0 where a name is given */
  readonly image: OpenedImage | null;
  /** the one who wants it went away */
  readonly signal: AbortSignal;
}

/** How a memory is filled that nobody has yet. Both may reject. */
export interface Filling {
  /** how many bytes the memory will hold at most */
  measure(): Promise<number>;
  /** fills a memfd and seals its size; resolves to the state that the driver wants back */
  fill(memoryFd: number): Promise<Json>;
}

export interface AcquiredMemory {
  readonly memory: SharedMemory;
  /** what the user should know of how it was joined, one line each */
  readonly notes: readonly string[];
}

export class Memories {
  readonly #runtimeDir: string;
  readonly #bus: string;
  readonly #held = new Map<string, SharedMemory>();
  /** our links as last written: the files are the truth, but somebody may have removed them */
  readonly #links = new Map<string, RamLink>();
  /** the links to memories in whose place a new copy was put, as they were */
  readonly #replaced = new Map<string, RamLink>();

  constructor(runtimeDir: string, bus: string) {
    this.#runtimeDir = runtimeDir;
    this.#bus = bus;
  }

  /**
   * The memory that is wanted, filled now if nobody has it. Each call must be paired with `release`.
   * @throws FusetapError BUSY where the name is another image's; USAGE where there is nothing to fill it with; NO_SPACE
   *   where it would exceed the limit; what `filling` rejects with
   */
  async acquire(wish: MemoryWish, filling: Filling): Promise<AcquiredMemory> {
    for (;;) {
      wish.signal.throwIfAborted();
      const found = await withRamLock(this.#runtimeDir, () => this.#look(wish));
      if (found === 'wait') await delay(POLL_MS);
      else if ('memory' in found) return found;
      else return { memory: await this.#fill(found, filling), notes: [] };
    }
  }

  /**
   * A new copy in place of a memory that nobody else has: who comes now finds the new one. The old one stays held until
   * it is released, and nobody may be writing to it.
   * @throws FusetapError BUSY where somebody else has it; what `acquire` throws
   */
  async refill(old: SharedMemory, image: OpenedImage, filling: Filling): Promise<SharedMemory> {
    const fresh = await withRamLock(this.#runtimeDir, () => {
      const link = this.#soleLink(old);
      return this.#begin({ ...link, image: image.path, identity: imageIdentity(image), sizeBytes: image.sizeBytes });
    });
    return await this.#fill(fresh, filling, () => {
      const link = this.#soleLink(old);
      this.#replaced.set(old.id, link);
      // it counts for as long as it is there, but nobody finds it
      this.#write({ ...link, share: link.id, identity: '', reservedBytes: 0 });
    });
  }

  /** Takes a `refill` back: who comes now finds the old one again. */
  async undoRefill(fresh: SharedMemory, old: SharedMemory): Promise<void> {
    const link = this.#replaced.get(old.id);
    if (link === undefined) return;
    await withRamLock(this.#runtimeDir, () => {
      removeLink(this.#runtimeDir, { id: fresh.id, pid: process.pid });
      this.#write(link);
    });
    this.#replaced.delete(old.id);
  }

  /** The bus ends: leaves no link behind, neither of ours nor of any who died. */
  async end(): Promise<void> {
    await withRamLock(this.#runtimeDir, () => {
      for (const id of this.#links.keys()) removeLink(this.#runtimeDir, { id, pid: process.pid });
      cleanLinks(this.#runtimeDir);
    });
  }

  release(memory: SharedMemory): void {
    memory.users -= 1;
    if (memory.users > 0) return;
    this.#drop(memory.id, memory.fd);
  }

  /** What the memory is shared under now. */
  shareOf(memory: SharedMemory): string {
    return this.#ownLink(memory.id).share;
  }

  /** What a process that has the memory open must publish to go on sharing it; see publishLink. */
  linkOf(memory: SharedMemory): RamLink {
    return this.#ownLink(memory.id);
  }

  /**
   * Reserves the whole size of a memory, because its I/O may be passed through: then nobody is asked before a hole is
   * filled.
   * @returns false where that does not fit
   */
  reserveWhole(memory: SharedMemory): Promise<boolean> {
    return withRamLock(this.#runtimeDir, () => {
      const account = this.#account();
      const used = usedBy(account, memory.id);
      if (account.usedBytes + Math.max(0, memory.sizeBytes - used) > account.limitBytes) return false;
      this.#change(memory.id, { reservedBytes: memory.sizeBytes });
      return true;
    });
  }

  /** Takes `reserveWhole` back. */
  async unreserveWhole(memory: SharedMemory): Promise<void> {
    await withRamLock(this.#runtimeDir, () => this.#change(memory.id, { reservedBytes: 0 }));
  }

  /**
   * Lets a memory grow beyond what it holds.
   * @param unspentBytes what this keeper was granted before for this memory and has not used
   * @param wantedBytes how much more would be good to have
   * @param neededBytes how much of it there is a use for now: of the rest half is left, so that nobody who asks all the time
   *   keeps others from what they need
   * @returns how much more it may grow: less than wanted, perhaps 0, where the limit is near
   */
  grant(memory: SharedMemory, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number> {
    return withRamLock(this.#runtimeDir, () => {
      this.#change(memory.id, { grantedBytes: unspentBytes });
      const account = this.#account();
      const image = account.images.find(({ first }) => first.id === memory.id);
      if (image === undefined) return 0;
      const granted = image.links.reduce((sum, link) => sum + link.grantedBytes, 0);
      const reservedAhead = image.usedBytes - image.residentBytes - granted;
      const room = account.limitBytes - account.usedBytes + reservedAhead;
      const half = room / 2 - ((room / 2) % MEMORY_PAGE);
      const more = Math.max(0, Math.min(wantedBytes, room, Math.max(neededBytes, half)));
      this.#change(memory.id, { grantedBytes: unspentBytes + more });
      return more;
    });
  }

  /** Whether another keeper has credit that it may not have used yet. */
  areOthersGranted(): boolean {
    return listLinks(this.#runtimeDir).some(({ pid, grantedBytes }) => pid !== process.pid && grantedBytes > 0);
  }

  /**
   * Makes a memory the one of another file, with which it has been made equal.
   * @param replace puts that file in the place of the old one and returns its identity; under the lock
   */
  async moveIdentity(memory: SharedMemory, oldIdentity: string, replace: () => string): Promise<void> {
    await withRamLock(this.#runtimeDir, () => {
      const identity = replace();
      for (const link of cleanLinks(this.#runtimeDir)) {
        if (link.id !== memory.id || link.identity !== oldIdentity) continue;
        const share = link.share === shareOfIdentity(oldIdentity) ? shareOfIdentity(identity) : link.share;
        writeLink(this.#runtimeDir, { ...link, identity, share });
      }
    });
  }

  /** Under the lock. */
  #look(wish: MemoryWish): AcquiredMemory | RamLink | 'wait' {
    const links = cleanLinks(this.#runtimeDir).filter((link) => leadsTo(link, wish));
    const filled = links.find((link) => link.filled);
    if (filled === undefined) return links.length > 0 ? 'wait' : this.#begin(this.#newLink(wish));
    const notes = checkJoin(filled, wish);
    const memory = this.#join(filled);
    // its last holder went this very moment
    return memory === null ? 'wait' : { memory, notes };
  }

  #join(link: RamLink): SharedMemory | null {
    const held = this.#held.get(link.id);
    if (held !== undefined) {
      held.users += 1;
      return held;
    }
    const fd = openLink(link);
    if (fd === null) return null;
    const own = { ...link, ...linkTarget(fd), bus: this.#bus, reservedBytes: 0, grantedBytes: 0 };
    return this.#hold(own, fd, link.state);
  }

  #newLink(wish: MemoryWish): Omit<RamLink, 'id' | 'pid' | 'startTime' | 'link' | 'dev' | 'ino'> {
    const image = checkNew(wish);
    const identity = imageIdentity(image);
    const { driver, share } = wish;
    const size = { sizeBytes: image.sizeBytes, reservedBytes: 0, grantedBytes: 0 };
    const copied = { image: image.path, identity, state: null, filled: false };
    return { driver, share: share ?? shareOfIdentity(identity), bus: this.#bus, ...copied, ...size };
  }

  /** Makes an empty memory and says that it is being copied. Under the lock. */
  #begin(facts: Omit<RamLink, 'id' | 'pid' | 'startTime' | 'link' | 'dev' | 'ino'>): RamLink {
    const id = randomBytes(8).toString('hex');
    const fd = memfdCreate(memoryName(id));
    const own = { ...facts, id, ...linkTarget(fd), filled: false, reservedBytes: 0, grantedBytes: 0 };
    this.#write(own);
    return own;
  }

  /** @param commit under the lock, before the copy becomes known; may refuse it */
  async #fill(link: RamLink, filling: Filling, commit: () => void = () => {}): Promise<SharedMemory> {
    const fd = Number(link.link.split('/').at(-1));
    try {
      const dataBytes = await filling.measure();
      await this.#reserve(link, dataBytes);
      const state = await filling.fill(fd);
      return await withRamLock(this.#runtimeDir, () => {
        commit();
        return this.#hold({ ...link, state, filled: true, reservedBytes: 0 }, fd, state);
      });
    } catch (error) {
      this.#drop(link.id, fd);
      throw error;
    }
  }

  /** Credit that was given for holes and is not used is no reason to refuse: it comes back soon. */
  async #reserve({ id, image }: RamLink, dataBytes: number): Promise<void> {
    const deadline = performance.now() + RECALL_MS;
    const tryOnce = (): boolean => {
      const account = this.#account();
      const isShort = account.usedBytes + dataBytes > account.limitBytes;
      if (isShort && performance.now() < deadline && isGranted(account)) return false;
      refuseAboveLimit(image, dataBytes, account);
      this.#change(id, { reservedBytes: dataBytes });
      return true;
    };
    while (!(await withRamLock(this.#runtimeDir, tryOnce))) await delay(POLL_MS);
  }

  #hold(link: RamLink, fd: number, state: Json): SharedMemory {
    this.#write(link);
    const memory = { id: link.id, fd, state, sizeBytes: link.sizeBytes, image: link.image, users: 1 };
    this.#held.set(link.id, memory);
    return memory;
  }

  /** The link goes first: nobody shall follow it to what the descriptor becomes next. */
  #drop(id: string, fd: number): void {
    this.#held.delete(id);
    this.#links.delete(id);
    this.#replaced.delete(id);
    removeLink(this.#runtimeDir, { id, pid: process.pid });
    closeSync(fd);
  }

  #account(): RamAccount {
    return accountFor(cleanLinks(this.#runtimeDir));
  }

  #change(id: string, change: Partial<RamLink>): void {
    this.#write({ ...this.#ownLink(id), ...change });
  }

  #write(link: RamLink): void {
    writeLink(this.#runtimeDir, link);
    this.#links.set(link.id, link);
  }

  #ownLink(id: string): RamLink {
    const link = ownLink(this.#runtimeDir, id) ?? this.#links.get(id);
    if (link === undefined) throw new TypeError(`the memory ${id} is not held`);
    return link;
  }

  /** The link to a memory that nobody but one vbd of this keeper has. */
  #soleLink(memory: SharedMemory): RamLink {
    const links = cleanLinks(this.#runtimeDir).filter(({ id }) => id === memory.id);
    return requireSole(links, memory.users);
  }
}

function isGranted({ images }: RamAccount): boolean {
  return images.some(({ links }) => links.some(({ grantedBytes }) => grantedBytes > 0));
}

function usedBy({ images }: RamAccount, id: string): number {
  return images.find(({ first }) => first.id === id)?.usedBytes ?? 0;
}
