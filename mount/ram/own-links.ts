/**
 * The links in ram/ that belong to this process (see links.ts). This object has their contents; the files are for other
 * processes, and `keep` and `remove` repeat a failed write later. Other processes change these files too, when an image
 * gets another file's identity.
 */
import { toFusetapError } from '../../drivers/errors.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';
import { accountFor, type Growth, growthWithin, type RamAccount } from './account.js';
import { cleanLinks, linkOf, listLinks, type RamLink, removeLink, withMoved, writeLink } from './links.js';
import { ramDirectory, withRamLock } from './lock.js';

/** A request for growth from this process, which may have unused growth from before. */
export interface OwnGrowth extends Growth {
  /** the unused part of earlier grants to this process for the image */
  readonly unspentBytes: number;
}

export class OwnLinks {
  readonly #runtimeDir: string;
  readonly #books: Bookkeeping;
  readonly #links = new Map<string, RamLink>();
  /** the process that has the same ram images (in a server: its keeper); its links are not counted beside ours */
  readonly #twinPid: number | null;

  constructor(runtimeDir: string, books: Bookkeeping, twinPid: number | null = null) {
    this.#runtimeDir = runtimeDir;
    this.#books = books;
    this.#twinPid = twinPid;
  }

  /** Publishes a link. Under the lock. @throws FusetapError if its file cannot be written; nothing is changed then */
  publish(link: RamLink): void {
    try {
      writeLink(this.#runtimeDir, link);
    } catch (error) {
      const path = ramDirectory(this.#runtimeDir);
      const message = `cannot tell other buses of the ram image ${link.image}: ${(error as Error).message}`;
      throw toFusetapError(error, message, { path, hint: `free space in ${this.#runtimeDir}, or make it writable` });
    }
    this.#links.set(link.id, link);
    this.#books.done(nameOf(link.id));
  }

  /** Publishes a link; if its file cannot be written now, it is written later. Under the lock. */
  keep(link: RamLink): void {
    this.note(link);
    this.#books.attempt(
      nameOf(link.id),
      () => writeLink(this.#runtimeDir, link),
      () => this.#rewrite(link.id),
    );
  }

  /** Stores a link here without writing its file. */
  note(link: RamLink): void {
    this.#links.set(link.id, link);
  }

  /** Removes a link. If its file cannot be removed now, the link is stale as soon as the memfd is closed. */
  remove(id: string): void {
    this.#links.delete(id);
    this.#books.attempt(
      nameOf(id),
      () => removeLink(this.#runtimeDir, { id, pid: process.pid }),
      () => this.#rewrite(id),
    );
  }

  /** Writes all link files again, because somebody removed them. */
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

  /** The link as stored here, with the fields that other processes may change read from its file. */
  get(id: string): RamLink {
    const known = this.#links.get(id);
    if (known === undefined) throw new TypeError(`this process has no link to the ram image ${id}`);
    const written = this.#books.isDue(nameOf(id)) ? null : linkOf(this.#runtimeDir, id);
    return written === null ? known : withMoved(known, written);
  }

  /** All valid links of all processes. Under the lock. @throws if the directory cannot be read */
  all(): RamLink[] {
    return this.#withOwn(cleanLinks(this.#runtimeDir));
  }

  #withOwn(found: readonly RamLink[]): RamLink[] {
    const others = found.filter(({ pid }) => pid !== process.pid && pid !== this.#twinPid);
    return [...others, ...this.ids().map((id) => this.get(id))];
  }

  /** The account of all valid links; only of our own if the directory cannot be read. */
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

  /** Whether another process has credit that may be unused. */
  areOthersGranted(): boolean {
    return this.#othersIfKnown().some(
      ({ pid, grantedBytes }) => pid !== process.pid && pid !== this.#twinPid && grantedBytes > 0,
    );
  }

  /** @returns how much more an image may grow; grants nothing */
  growth(id: string, growth: OwnGrowth): number {
    this.note({ ...this.get(id), grantedBytes: growth.unspentBytes });
    return growthWithin(this.account(), id, growth);
  }

  /** Like `growth`, and records it as granted. Under the lock if possible. */
  grow(id: string, growth: OwnGrowth): number {
    const more = this.growth(id, growth);
    this.keep({ ...this.get(id), grantedBytes: growth.unspentBytes + more });
    return more;
  }
}

function nameOf(id: string): string {
  return `ram/${id}`;
}
