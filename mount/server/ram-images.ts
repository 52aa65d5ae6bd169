/**
 * The ram images as a server knows them: it has them open, as its keeper has, and can say how much they may grow where the
 * keeper cannot. When the keeper has died it publishes links of its own, so that others go on finding the images.
 */
import type { CreditedMemory, Grants } from '../ram/credit.js';
import { cleanLinks, linkOf, linkTarget, type RamLink } from '../ram/links.js';
import { withRamLock } from '../ram/lock.js';
import { OwnLinks } from '../ram/own-links.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';

/** A ram image that others may share, and where the server has it open. */
export interface ServedMemory extends CreditedMemory {
  /** as the keeper told it at attach */
  readonly link: RamLink;
  readonly fd: number;
  /** its whole size is reserved: the kernel may fill its holes */
  readonly isReserved: boolean;
}

/** a write waits for a grant */
const GRANT_LOCK_MS = 300;
const LOCK_OPTIONS = { mayGoWithout: true, limitMs: 2_000 };

export class ServerMemories implements Grants {
  readonly #runtimeDir: string;
  readonly #keeperPid: number;
  readonly #links: OwnLinks;
  readonly #served: () => Iterable<ServedMemory>;
  #isPublic = false;

  /** @param served the memories of all disks, one for each disk */
  constructor(
    where: { runtimeDir: string; keeperPid: number },
    books: Bookkeeping,
    served: () => Iterable<ServedMemory>,
  ) {
    this.#runtimeDir = where.runtimeDir;
    this.#keeperPid = where.keeperPid;
    this.#links = new OwnLinks(where.runtimeDir, books, where.keeperPid);
    this.#served = served;
  }

  /** Makes them known to others, from now on: the keeper's links lead nowhere any more. */
  async publish(): Promise<void> {
    this.#isPublic = true;
    const publishAll = (): void => {
      for (const memory of this.#served()) this.#links.keep(this.#linkTo(memory));
      cleanLinks(this.#runtimeDir);
    };
    await withRamLock(this.#runtimeDir, publishAll, LOCK_OPTIONS).catch((error: unknown) => console.error(error));
  }

  /** Writes anew what others may have taken away of our links. */
  rewrite(): Promise<void> {
    return this.#links.rewriteAll();
  }

  /** Its disk is about to close it. What another disk has too leads there from now on. */
  drop({ id }: CreditedMemory): void {
    if (!this.#links.has(id)) return;
    const other = [...this.#served()].find((memory) => memory.id === id);
    if (other === undefined) this.#links.remove(id);
    else if (this.#isPublic) this.#links.keep(this.#linkTo(other));
    else this.#links.note(this.#linkTo(other));
  }

  grant(memory: CreditedMemory, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number> {
    const growth = { unspentBytes, wantedBytes, neededBytes };
    this.#noteLink(memory.id);
    // the keeper may go on any moment, and say itself what was granted: what is only looked at needs no lock
    if (!this.#isPublic) return Promise.resolve(this.#links.growth(memory.id, growth));
    const grow = (): number => this.#links.grow(memory.id, growth);
    return withRamLock(this.#runtimeDir, grow, { mayGoWithout: true, limitMs: GRANT_LOCK_MS });
  }

  areOthersGranted(): boolean {
    return this.#links.areOthersGranted();
  }

  #noteLink(id: string): void {
    if (this.#links.has(id)) return;
    for (const memory of this.#served()) if (memory.id === id) this.#links.note(this.#linkTo(memory));
  }

  #linkTo({ id, link, fd, isReserved }: ServedMemory): RamLink {
    // the image may have come to be another file since it was attached, which the keeper's link says while it is there
    const { identity, share } = linkOf(this.#runtimeDir, id, this.#keeperPid) ?? link;
    const reservedBytes = isReserved ? link.sizeBytes : 0;
    return { ...link, identity, share, ...linkTarget(fd), reservedBytes, grantedBytes: 0 };
  }
}
