/**
 * The ram images of a keeper. A ram image is a memfd that several vbds share, on any bus. It is filled once, and it is
 * gone when its last user is gone.
 *
 *      look (under the lock) ──► there, and filled: join ──► open its link, publish our own
 *        ▲                 │
 *        └── wait a moment ◄── there, still being copied
 *                          │
 *                          └──► not there: make memfd, publish link ──► measure ──► reserve ──► fill ──► filled
 *
 * The keeper has the memfd open; the driver fills it in the server. If two attaches come at once, one copies and the
 * other waits. If the copy fails, its link is removed and the other attach tries.
 */

import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Json } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import type { Measured } from '../../drivers/graph/open-graph.js';
import { builtin } from '../../system/builtin.js';
import { memfdCreate } from '../../system/libc.js';
import {
  awaitNoCopies,
  isBaseElsewhere,
  isWrittenByOthers,
  markBase,
  markWriter,
  unmarkBase,
  unmarkWriter,
} from '../images/copy-lease.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';
import type { PreparedFile } from '../runtime/replace-file.js';
import { type RamAccount, refuseAboveLimit } from './account.js';
import { describeJoin } from './join-notes.js';
import { cleanLinks, linkTarget, memfdName, openLink, prepareLink, type RamLink } from './links.js';
import { withRamLock } from './lock.js';
import { OwnLinks } from './own-links.js';
import {
  type CopiedImage,
  checkJoin,
  checkNew,
  leadsTo,
  type RamImageWish,
  requireSole,
  shareOfIdentity,
} from './share-rules.js';

const POLL_MS = 10;
const COPIES_PATIENCE_MS = 5_000;
/** unused credit is taken back within this time, also by keepers that get little CPU time; see credit.ts */
export const RECALL_MS = 4_000;

/** short, because a client's write waits for the grant */
const GRANT_LOCK_MS = 300;
/** for changes that undo something and must succeed */
const MUST_SUCCEED = { mayGoWithout: true, limitMs: 2_000 };

/** A ram image that this keeper has open. */
export interface RamImage {
  /** also in the name of its memfd */
  readonly id: string;
  readonly fd: number;
  readonly state: Json;
  readonly sizeBytes: number;
  /** the path of the file that it was copied from */
  readonly image: string;
  /** it belongs to one vbd, and no other attach finds it */
  readonly isOwn: boolean;
  /** number of vbds of this keeper */
  users: number;
  /** how many of them have it below another driver, which only reads it */
  bases: number;
  /**
   * clients of this keeper may write it, and no other bus writes without the file's lock (mount/images/copy-lease.ts)
   */
  isWritten: boolean;
}

const UNFILLED = { state: null, filled: false, reservedBytes: 0, grantedBytes: 0 } as const;

/** How a new ram image is filled. Both calls may reject. */
export interface Filling {
  measure(): Promise<Measured>;
  /** fills the memfd and seals its size; resolves to the state that the driver is given at each `open` */
  fill(memoryFd: number): Promise<Json>;
}

export interface AcquiredRamImage {
  readonly memory: RamImage;
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

export class RamImages {
  readonly #runtimeDir: string;
  readonly #bus: string;
  readonly #held = new Map<string, RamImage>();
  readonly #links: OwnLinks;
  /** by id, the links of ram images that were replaced by a new copy, as they were before */
  readonly #replaced = new Map<string, RamLink>();

  constructor(runtimeDir: string, bus: string, books: Bookkeeping) {
    this.#runtimeDir = runtimeDir;
    this.#bus = bus;
    this.#links = new OwnLinks(runtimeDir, books);
  }

  /**
   * Joins the ram image, or makes and fills it if no bus has it. Each call must be paired with `release`.
   * @throws FusetapError BUSY if the name belongs to another image; USAGE if there is no image to copy; NO_SPACE if
   *   it would exceed the limit; what `filling` rejects with
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
   * Makes memory for one vbd: it counts as a ram image does, but no other attach finds it. The call must be paired with
   * `release`.
   * @param sizeBytes of the disk
   * @throws FusetapError NO_SPACE if it would exceed the limit; what `filling` rejects with
   */
  async own(
    what: { readonly driver: string; readonly image: string; readonly sizeBytes: number },
    filling: Filling,
  ): Promise<RamImage> {
    const begin = (): RamLink => this.#begin({ ...what, share: '', identity: '', bus: this.#bus, ...UNFILLED });
    return await this.#fill(await withRamLock(this.#runtimeDir, begin), filling);
  }

  /**
   * Makes a new copy in place of a ram image that no other vbd has: later attaches find the new copy. The old one stays
   * until it is released. No client may write to the old one meanwhile.
   * @throws FusetapError BUSY if another vbd has it; what `acquire` throws
   */
  async refill(old: RamImage, { path: image, identity, sizeBytes }: CopiedImage, filling: Filling): Promise<RamImage> {
    const fresh = await withRamLock(this.#runtimeDir, () => {
      const link = this.#soleLink(old);
      return this.#begin({ ...link, image, identity, sizeBytes: sizeBytes ?? 0 });
    });
    return await this.#fill(fresh, filling, () => {
      const link = this.#soleLink(old);
      // as long as it exists its memory counts, but no attach finds it
      this.#links.publish({ ...link, share: link.id, identity: '', reservedBytes: 0 });
      this.#replaced.set(old.id, link);
      return () => this.#links.keep(link);
    });
  }

  /** Undoes a `refill`: later attaches find the old ram image again. */
  async undoRefill(fresh: RamImage, old: RamImage): Promise<void> {
    const link = this.#replaced.get(old.id);
    if (link === undefined) return;
    this.#replaced.delete(old.id);
    const undo = (): void => {
      this.#links.remove(fresh.id);
      this.#links.keep(link);
    };
    await withRamLock(this.#runtimeDir, undo, MUST_SUCCEED);
  }

  /** The bus ends: removes all our links, and those of dead processes. */
  async end(): Promise<void> {
    const clear = (): void => {
      for (const id of this.#links.ids()) this.#links.remove(id);
      cleanLinks(this.#runtimeDir);
    };
    await withRamLock(this.#runtimeDir, clear, MUST_SUCCEED);
  }

  release(memory: RamImage): void {
    memory.users -= 1;
    if (memory.users > 0) return;
    this.#drop(memory.id, memory.fd);
  }

  /**
   * Allows writes to the ram image; call it before the first writable vbd is attached. Valid until the image is
   * released.
   * @throws FusetapError BUSY if another bus writes without the file's lock and does not stop
   */
  async allowWriting(memory: RamImage): Promise<void> {
    if (memory.isWritten) return;
    markWriter(memory.fd, process.pid);
    if (memory.bases > 0 || isBaseElsewhere(memory.fd)) {
      unmarkWriter(memory.fd, process.pid);
      throw new FusetapError('BUSY', `${memory.image}: its ram image is below another disk, which would change`, {
        hint: 'attach it with mode r, or detach that disk (fusetap memory lists the vbds)',
      });
    }
    memory.isWritten = await awaitNoCopies(memory.fd, COPIES_PATIENCE_MS);
    if (memory.isWritten) return;
    throw new FusetapError('BUSY', `${memory.image}: another bus writes its ram image and does not answer`, {
      hint: 'try again in half a minute: the server of that bus is replaced by then',
    });
  }

  /**
   * Keeps a ram image from being written, because another disk is over it, until `releaseBase`.
   * @throws FusetapError BUSY if clients may write it
   */
  useAsBase(memory: RamImage): void {
    markBase(memory.fd);
    if (!memory.isWritten && !isWrittenByOthers(memory.fd, process.pid)) {
      memory.bases += 1;
      return;
    }
    if (memory.bases === 0) unmarkBase(memory.fd);
    throw new FusetapError('BUSY', `${memory.image}: a vbd of mode w has its ram image, which must not change`, {
      hint: 'detach that vbd and attach it with mode r (fusetap memory lists the vbds)',
    });
  }

  releaseBase(memory: RamImage): void {
    memory.bases -= 1;
    if (memory.bases === 0) unmarkBase(memory.fd);
  }

  /** The name that the ram image is shared by now. */
  shareOf(memory: RamImage): string {
    return this.#links.get(memory.id).share;
  }

  /** The link that a process that has the ram image open must publish to keep on sharing it. */
  linkOf(memory: RamImage): RamLink {
    return this.#links.get(memory.id);
  }

  /**
   * Reserves the whole size of a ram image, because with passthrough the kernel does not ask before it fills a hole.
   * @returns false if that does not fit below the limit
   * @throws if the link cannot be written for others
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

  /** Undoes `reserveWhole`. */
  async unreserveWhole(memory: RamImage): Promise<void> {
    const undo = (): void => this.#links.keep({ ...this.#links.get(memory.id), reservedBytes: 0 });
    await withRamLock(this.#runtimeDir, undo, MUST_SUCCEED);
  }

  /**
   * Lets a ram image grow beyond its resident bytes.
   * @param unspentBytes the unused part of earlier grants to this keeper for this image
   * @param wantedBytes see Growth
   * @param neededBytes see Growth
   * @returns the bytes by which it may grow
   */
  grant(memory: Pick<RamImage, 'id'>, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number> {
    const grow = (): number => this.#links.grow(memory.id, { unspentBytes, wantedBytes, neededBytes });
    // a process that keeps the lock, or a broken directory, must not block a client's write
    return withRamLock(this.#runtimeDir, grow, { mayGoWithout: true, limitMs: GRANT_LOCK_MS });
  }

  /** Whether another keeper has credit that may be unused. */
  areOthersGranted(): boolean {
    return this.#links.areOthersGranted();
  }

  /** Writes our link files again, because somebody may have removed them. */
  rewrite(): Promise<void> {
    return this.#links.rewriteAll();
  }

  /**
   * Gives a ram image the identity of another file, which has the same contents now.
   * @param from the identity of the file that it was copied from
   * @param to the identity of the other file
   * @param replace puts the other file in the place of the first; runs under the lock
   * @throws if the links cannot be written for others; nothing is replaced then
   */
  async moveIdentity(memory: RamImage, from: string, to: string, replace: () => void): Promise<void> {
    await withRamLock(this.#runtimeDir, () => {
      const links = this.#links.all().filter(({ id, identity }) => id === memory.id && identity === from);
      const moved = links.map((link) => {
        const share = link.share === shareOfIdentity(from) ? shareOfIdentity(to) : link.share;
        return { ...link, identity: to, share, sameAsFileMs: Date.now() };
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
      // the file is replaced, so do not fail any more; placing the links needs no disk space
      for (const file of prepared) placeQuietly(file);
    });
  }

  /** Under the lock. */
  #look(wish: RamImageWish): AcquiredRamImage | RamLink | 'wait' {
    const links = this.#links.all().filter((link) => leadsTo(link, wish));
    const filled = links.find((link) => link.filled);
    if (filled === undefined) return links.length > 0 ? 'wait' : this.#begin(this.#newLink(wish));
    const notes = [...checkJoin(filled, wish), ...describeJoin(filled, wish, this.#runtimeDir)];
    const memory = this.#join(filled);
    // null: its last user went away just now
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
    const { path: image, identity, sizeBytes } = checkNew(wish);
    const { driver, share } = wish;
    const copied = { image, identity, sizeBytes: sizeBytes ?? 0 };
    return { driver, share: share ?? shareOfIdentity(identity), bus: this.#bus, ...copied, ...UNFILLED };
  }

  /** Makes an empty memfd and publishes a link that says that it is being copied. Under the lock. */
  #begin(facts: Omit<RamLink, 'id' | 'pid' | 'startTime' | 'link' | 'dev' | 'ino'>): RamLink {
    const id = builtin.crypto.randomBytes(8).toString('hex');
    const fd = memfdCreate(memfdName(id));
    const now = Date.now();
    const times = { copiedMs: now, sameAsFileMs: now };
    // memory of one vbd has a name that nobody else can have
    const share = facts.share === '' ? id : facts.share;
    const own = { ...facts, ...times, share, id, ...linkTarget(fd), filled: false, reservedBytes: 0, grantedBytes: 0 };
    try {
      this.#links.publish(own);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return own;
  }

  /** @param commit runs under the lock before the copy is published; may throw; returns a function that undoes it */
  async #fill(link: RamLink, filling: Filling, commit: () => () => void = () => nothing): Promise<RamImage> {
    const fd = Number(link.link.split('/').at(-1));
    try {
      const measured = await filling.measure();
      const sizeBytes = measured.sizeBytes ?? link.sizeBytes;
      await this.#reserve({ ...link, sizeBytes }, measured.bytes);
      const state = await filling.fill(fd);
      return await withRamLock(this.#runtimeDir, () => {
        const undo = commit();
        try {
          return this.#hold({ ...link, sizeBytes, state, filled: true, reservedBytes: 0 }, fd, state);
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

  /**
   * Reserves memory for the data. Unused credit is no reason to refuse, because it is taken back soon: waits for it.
   */
  async #reserve({ id, image, sizeBytes }: RamLink, dataBytes: number): Promise<void> {
    const deadline = performance.now() + RECALL_MS;
    const tryOnce = (): boolean => {
      const account = this.#links.account();
      const isShort = account.usedBytes + dataBytes > account.limitBytes;
      if (isShort && performance.now() < deadline && isGranted(account)) return false;
      refuseAboveLimit(image, dataBytes, account);
      this.#change(id, { sizeBytes, reservedBytes: dataBytes });
      return true;
    };
    while (!(await withRamLock(this.#runtimeDir, tryOnce))) await delay(POLL_MS);
  }

  #hold(link: RamLink, fd: number, state: Json): RamImage {
    this.#links.publish(link);
    const { id, sizeBytes, image } = link;
    const isOwn = link.share === id;
    const memory = { id, fd, state, sizeBytes, image, isOwn, users: 1, bases: 0, isWritten: false };
    this.#held.set(link.id, memory);
    return memory;
  }

  /** Removes the link first, so that no process follows it after the descriptor number is reused. */
  #drop(id: string, fd: number): void {
    this.#held.delete(id);
    this.#replaced.delete(id);
    this.#links.remove(id);
    closeSync(fd);
  }

  /** @throws if the link cannot be written for others */
  #change(id: string, change: Partial<RamLink>): void {
    this.#links.publish({ ...this.#links.get(id), ...change });
  }

  /** The link to a ram image. @throws FusetapError BUSY unless a single vbd of this keeper has it */
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
