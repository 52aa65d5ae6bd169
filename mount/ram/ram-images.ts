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
import { FusetapError } from '../../drivers/errors.js';
import { memfdCreate } from '../../system/libc.js';
import { awaitNoCopies, markWriter } from '../images/copy-lease.js';
import type { OpenedImage } from '../images/open-image.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';
import type { PreparedFile } from '../runtime/replace-file.js';
import { type RamAccount, refuseAboveLimit } from './account.js';
import { cleanLinks, linkTarget, memfdName, openLink, prepareLink, type RamLink } from './links.js';
import { withRamLock } from './lock.js';
import { OwnLinks } from './own-links.js';
import {
  checkJoin,
  checkNew,
  imageIdentity,
  leadsTo,
  type RamImageWish,
  requireSole,
  shareOfIdentity,
} from './share-rules.js';

const POLL_MS = 10;
const COPIES_PATIENCE_MS = 5_000;
/** credit that nobody uses is back within this time, also from keepers that hardly get to run; see credit.ts */
export const RECALL_MS = 4_000;

/** a write waits for a grant */
const GRANT_LOCK_MS = 300;
/** for what takes something back, which must succeed */
const ANYWAY = { mayGoWithout: true, limitMs: 2_000 };

/** A memory that this keeper holds. */
export interface RamImage {
  /** of the memory, in its name */
  readonly id: string;
  readonly fd: number;
  readonly state: Json;
  readonly sizeBytes: number;
  /** the path it was copied from */
  readonly image: string;
  /** vbds of this keeper */
  users: number;
  /** clients of this keeper may write it: no other bus writes past the lock of the file (mount/images/copy-lease.ts) */
  isWritten: boolean;
}

/** How a memory is filled that nobody has yet. Both may reject. */
export interface Filling {
  /** how many bytes the memory will hold at most */
  measure(): Promise<number>;
  /** fills a memfd and seals its size; resolves to the state that the driver wants back */
  fill(memoryFd: number): Promise<Json>;
}

export interface AcquiredRamImage {
  readonly memory: RamImage;
  /** what the user should know of how it was joined, one line each */
  readonly notes: readonly string[];
}

export class RamImages {
  readonly #runtimeDir: string;
  readonly #bus: string;
  readonly #held = new Map<string, RamImage>();
  readonly #links: OwnLinks;
  /** the links to memories in whose place a new copy was put, as they were */
  readonly #replaced = new Map<string, RamLink>();

  constructor(runtimeDir: string, bus: string, books: Bookkeeping) {
    this.#runtimeDir = runtimeDir;
    this.#bus = bus;
    this.#links = new OwnLinks(runtimeDir, books);
  }

  /**
   * The memory that is wanted, filled now if nobody has it. Each call must be paired with `release`.
   * @throws FusetapError BUSY if the name is another image's; USAGE if there is nothing to fill it with; NO_SPACE
   *   where it would exceed the limit; what `filling` rejects with
   */
  async acquire(wish: RamImageWish, filling: Filling): Promise<AcquiredRamImage> {
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
   * @throws FusetapError BUSY if somebody else has it; what `acquire` throws
   */
  async refill(old: RamImage, image: OpenedImage, filling: Filling): Promise<RamImage> {
    const fresh = await withRamLock(this.#runtimeDir, () => {
      const link = this.#soleLink(old);
      return this.#begin({ ...link, image: image.path, identity: imageIdentity(image), sizeBytes: image.sizeBytes });
    });
    return await this.#fill(fresh, filling, () => {
      const link = this.#soleLink(old);
      // it counts for as long as it is there, but nobody finds it
      this.#links.publish({ ...link, share: link.id, identity: '', reservedBytes: 0 });
      this.#replaced.set(old.id, link);
      return () => this.#links.keep(link);
    });
  }

  /** Takes a `refill` back: who comes now finds the old one again. */
  async undoRefill(fresh: RamImage, old: RamImage): Promise<void> {
    const link = this.#replaced.get(old.id);
    if (link === undefined) return;
    this.#replaced.delete(old.id);
    const undo = (): void => {
      this.#links.remove(fresh.id);
      this.#links.keep(link);
    };
    await withRamLock(this.#runtimeDir, undo, ANYWAY);
  }

  /** The bus ends: leaves no link behind, neither of ours nor of any who died. */
  async end(): Promise<void> {
    const clear = (): void => {
      for (const id of this.#links.ids()) this.#links.remove(id);
      cleanLinks(this.#runtimeDir);
    };
    await withRamLock(this.#runtimeDir, clear, ANYWAY);
  }

  release(memory: RamImage): void {
    memory.users -= 1;
    if (memory.users > 0) return;
    this.#drop(memory.id, memory.fd);
  }

  /**
   * Before the first vbd that may write. It ends with the memory.
   * @throws FusetapError BUSY if another bus writes past the lock of the file and does not stop
   */
  async allowWriting(memory: RamImage): Promise<void> {
    if (memory.isWritten) return;
    markWriter(memory.fd, process.pid);
    memory.isWritten = await awaitNoCopies(memory.fd, COPIES_PATIENCE_MS);
    if (memory.isWritten) return;
    throw new FusetapError('BUSY', `${memory.image}: the memory is being written by another bus that does not answer`, {
      hint: 'its server is replaced in half a minute: try again then',
    });
  }

  /** What the memory is shared under now. */
  shareOf(memory: RamImage): string {
    return this.#links.get(memory.id).share;
  }

  /** What a process that has the memory open must publish to go on sharing it; see publishLink. */
  linkOf(memory: RamImage): RamLink {
    return this.#links.get(memory.id);
  }

  /**
   * Reserves the whole size of a memory, because its I/O may be passed through: then nobody is asked before a hole is
   * filled.
   * @returns false if that does not fit
   * @throws if others cannot be told of it
   */
  reserveWhole(memory: RamImage): Promise<boolean> {
    return withRamLock(this.#runtimeDir, () => {
      const account = this.#links.account();
      const used = usedBy(account, memory.id);
      if (account.usedBytes + Math.max(0, memory.sizeBytes - used) > account.limitBytes) return false;
      this.#change(memory.id, { reservedBytes: memory.sizeBytes });
      return true;
    });
  }

  /** Takes `reserveWhole` back. */
  async unreserveWhole(memory: RamImage): Promise<void> {
    const undo = (): void => this.#links.keep({ ...this.#links.get(memory.id), reservedBytes: 0 });
    await withRamLock(this.#runtimeDir, undo, ANYWAY);
  }

  /**
   * Lets a memory grow beyond what it holds.
   * @param unspentBytes what this keeper was granted before for this memory and has not used
   * @param wantedBytes see Growth
   * @param neededBytes see Growth
   * @returns how much more it may grow
   */
  grant(memory: Pick<RamImage, 'id'>, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number> {
    const grow = (): number => this.#links.grow(memory.id, { unspentBytes, wantedBytes, neededBytes });
    // whoever keeps the lock, or the directory from being used, must not keep a client from writing
    return withRamLock(this.#runtimeDir, grow, { mayGoWithout: true, limitMs: GRANT_LOCK_MS });
  }

  /** Whether another keeper has credit that it may not have used yet. */
  areOthersGranted(): boolean {
    return this.#links.areOthersGranted();
  }

  /** Writes anew what others may have taken away of our links. */
  rewrite(): Promise<void> {
    return this.#links.rewriteAll();
  }

  /**
   * Makes a memory the one of another file, with which it has been made equal.
   * @param from the identity of the file that it was copied from
   * @param to that of the other
   * @param replace puts the other in the place of the first; under the lock
   * @throws if others cannot be told of it; nothing is replaced then
   */
  async moveIdentity(memory: RamImage, from: string, to: string, replace: () => void): Promise<void> {
    await withRamLock(this.#runtimeDir, () => {
      const links = this.#links.all().filter(({ id, identity }) => id === memory.id && identity === from);
      const moved = links.map((link) => {
        const share = link.share === shareOfIdentity(from) ? shareOfIdentity(to) : link.share;
        return { ...link, identity: to, share };
      });
      const prepared: PreparedFile[] = [];
      try {
        for (const link of moved) prepared.push(prepareLink(this.#runtimeDir, link));
        replace();
      } catch (error) {
        for (const file of prepared) file.discard();
        throw error;
      }
      for (const link of moved) if (link.pid === process.pid) this.#links.note(link);
      // there is no way back, and nothing that needs room
      for (const file of prepared) placeQuietly(file);
    });
  }

  /** Under the lock. */
  #look(wish: RamImageWish): AcquiredRamImage | RamLink | 'wait' {
    const links = this.#links.all().filter((link) => leadsTo(link, wish));
    const filled = links.find((link) => link.filled);
    if (filled === undefined) return links.length > 0 ? 'wait' : this.#begin(this.#newLink(wish));
    const notes = checkJoin(filled, wish);
    const memory = this.#join(filled);
    // its last holder went this very moment
    return memory === null ? 'wait' : { memory, notes };
  }

  #join(link: RamLink): RamImage | null {
    const held = this.#held.get(link.id);
    if (held !== undefined) {
      held.users += 1;
      return held;
    }
    const fd = openLink(link);
    if (fd === null) return null;
    const own = { ...link, ...linkTarget(fd), bus: this.#bus, reservedBytes: 0, grantedBytes: 0 };
    try {
      return this.#hold(own, fd, link.state);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #newLink(wish: RamImageWish): Omit<RamLink, 'id' | 'pid' | 'startTime' | 'link' | 'dev' | 'ino'> {
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
    const fd = memfdCreate(memfdName(id));
    const own = { ...facts, id, ...linkTarget(fd), filled: false, reservedBytes: 0, grantedBytes: 0 };
    try {
      this.#links.publish(own);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return own;
  }

  /** @param commit under the lock, before the copy becomes known; may refuse it. @returns how that is taken back */
  async #fill(link: RamLink, filling: Filling, commit: () => () => void = () => nothing): Promise<RamImage> {
    const fd = Number(link.link.split('/').at(-1));
    try {
      const dataBytes = await filling.measure();
      await this.#reserve(link, dataBytes);
      const state = await filling.fill(fd);
      return await withRamLock(this.#runtimeDir, () => {
        const undo = commit();
        try {
          return this.#hold({ ...link, state, filled: true, reservedBytes: 0 }, fd, state);
        } catch (error) {
          undo();
          throw error;
        }
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
      const account = this.#links.account();
      const isShort = account.usedBytes + dataBytes > account.limitBytes;
      if (isShort && performance.now() < deadline && isGranted(account)) return false;
      refuseAboveLimit(image, dataBytes, account);
      this.#change(id, { reservedBytes: dataBytes });
      return true;
    };
    while (!(await withRamLock(this.#runtimeDir, tryOnce))) await delay(POLL_MS);
  }

  #hold(link: RamLink, fd: number, state: Json): RamImage {
    this.#links.publish(link);
    const memory = { id: link.id, fd, state, sizeBytes: link.sizeBytes, image: link.image, users: 1, isWritten: false };
    this.#held.set(link.id, memory);
    return memory;
  }

  /** The link goes first: nobody shall follow it to what the descriptor becomes next. */
  #drop(id: string, fd: number): void {
    this.#held.delete(id);
    this.#replaced.delete(id);
    this.#links.remove(id);
    closeSync(fd);
  }

  /** @throws if others cannot be told of it */
  #change(id: string, change: Partial<RamLink>): void {
    this.#links.publish({ ...this.#links.get(id), ...change });
  }

  /** The link to a memory that nobody but one vbd of this keeper has. */
  #soleLink(memory: RamImage): RamLink {
    const links = this.#links.all().filter(({ id }) => id === memory.id);
    return requireSole(links, memory.users);
  }
}

const nothing = (): void => {};

function placeQuietly(file: PreparedFile): void {
  try {
    file.place();
  } catch (error) {
    console.error('a link to a ram image could not be changed:', error);
  }
}

function isGranted({ images }: RamAccount): boolean {
  return images.some(({ links }) => links.some(({ grantedBytes }) => grantedBytes > 0));
}

function usedBy({ images }: RamAccount, id: string): number {
  return images.find(({ first }) => first.id === id)?.usedBytes ?? 0;
}
