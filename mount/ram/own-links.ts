/**
 * The links in ram/ of this process (see links.ts). What they say is known here; their files tell it to others, and
 * are written as far as that can be done. Others may write them too, where an image comes to be another file.
 */
import { toFusetapError } from '../../drivers/errors.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';
import { accountFor, type Growth, growthWithin, type RamAccount } from './account.js';
import { cleanLinks, linkOf, listLinks, type RamLink, removeLink, writeLink } from './links.js';
import { ramDirectory, withRamLock } from './lock.js';

/** What is asked of an image that this process may have been granted something for before. */
export interface OwnGrowth extends Growth {
  /** what of that it has not used */
  readonly unspentBytes: number;
}

export class OwnLinks {
  readonly #runtimeDir: string;
  readonly #books: Bookkeeping;
  readonly #links = new Map<string, RamLink>();
  /** of the process whose memories these are too: its links count for nothing beside ours */
  readonly #twinPid: number | null;

  constructor(runtimeDir: string, books: Bookkeeping, twinPid: number | null = null) {
    this.#runtimeDir = runtimeDir;
    this.#books = books;
    this.#twinPid = twinPid;
  }

  /** Makes a link known. Under the lock. @throws FusetapError if its file cannot be written: it is then as it was */
  publish(link: RamLink): void {
    try {
      writeLink(this.#runtimeDir, link);
    } catch (error) {
      const path = ramDirectory(this.#runtimeDir);
      const message = `cannot tell other buses of the ram image ${link.image}: ${(error as Error).message}`;
      throw toFusetapError(error, message, { path, hint: `make room in ${this.#runtimeDir}, or have it writable` });
    }
    this.#links.set(link.id, link);
    this.#books.done(nameOf(link.id));
  }

  /** Makes a link known, to others perhaps later. Under the lock. */
  keep(link: RamLink): void {
    this.note(link);
    this.#books.attempt(
      nameOf(link.id),
      () => writeLink(this.#runtimeDir, link),
      () => this.#rewrite(link.id),
    );
  }

  /** Knows a link that others are not told of. */
  note(link: RamLink): void {
    this.#links.set(link.id, link);
  }

  /** Takes a link away. One whose file stays leads nowhere once the memory is closed. */
  remove(id: string): void {
    this.#links.delete(id);
    this.#books.attempt(
      nameOf(id),
      () => removeLink(this.#runtimeDir, { id, pid: process.pid }),
      () => this.#rewrite(id),
    );
  }

  /** Writes all of them anew: somebody has taken their files away. */
  async rewriteAll(): Promise<void> {
    for (const id of this.#links.keys()) await this.#rewrite(id);
  }

  #rewrite(id: string): Promise<void> {
    return withRamLock(this.#runtimeDir, () => {
      const link = this.#links.get(id);
      if (link === undefined) removeLink(this.#runtimeDir, { id, pid: process.pid });
      else writeLink(this.#runtimeDir, link);
    });
  }

  has(id: string): boolean {
    return this.#links.has(id);
  }

  ids(): string[] {
    return [...this.#links.keys()];
  }

  /** As it is known here; what others may have changed, as its file has it. */
  get(id: string): RamLink {
    const known = this.#links.get(id);
    if (known === undefined) throw new TypeError(`the memory ${id} is not held`);
    const written = this.#books.isDue(nameOf(id)) ? null : linkOf(this.#runtimeDir, id);
    return written === null ? known : { ...known, identity: written.identity, share: written.share };
  }

  /** All links that lead to a memory. Under the lock. @throws if the directory cannot be read */
  all(): RamLink[] {
    return this.#withOwn(cleanLinks(this.#runtimeDir));
  }

  #withOwn(found: readonly RamLink[]): RamLink[] {
    const others = found.filter(({ pid }) => pid !== process.pid && pid !== this.#twinPid);
    return [...others, ...this.ids().map((id) => this.get(id))];
  }

  /** What there is; where the directory cannot be read, of our own. */
  account(): RamAccount {
    return accountFor(this.#withOwn(this.#othersIfKnown()));
  }

  #othersIfKnown(): RamLink[] {
    try {
      return listLinks(this.#runtimeDir);
    } catch {
      return [];
    }
  }

  /** Whether another process has credit that it may not have used yet. */
  areOthersGranted(): boolean {
    return this.#othersIfKnown().some(
      ({ pid, grantedBytes }) => pid !== process.pid && pid !== this.#twinPid && grantedBytes > 0,
    );
  }

  /** @returns how much more a memory may grow; nothing is changed */
  growth(id: string, growth: OwnGrowth): number {
    this.note({ ...this.get(id), grantedBytes: growth.unspentBytes });
    return growthWithin(this.account(), id, growth);
  }

  /** The same, and counts it as granted. Under the lock, where that can be had. */
  grow(id: string, growth: OwnGrowth): number {
    const more = this.growth(id, growth);
    this.keep({ ...this.get(id), grantedBytes: growth.unspentBytes + more });
    return more;
  }
}

function nameOf(id: string): string {
  return `ram/${id}`;
}
