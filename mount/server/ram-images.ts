/**
 * The ram images in the server. It has them open, as the keeper has, and decides how much they may grow when the keeper
 * cannot. When the keeper has died, the server publishes links of its own, so that other buses still find the images.
 */
import type { CreditedRamImage, Grants } from '../ram/credit.js';
import { cleanLinks, linkOf, linkTarget, type RamLink, withMoved } from '../ram/links.js';
import { withRamLock } from '../ram/lock.js';
import { OwnLinks } from '../ram/own-links.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';

/** A ram image that others may share, as the server has it open. */
export interface ServedRamImage extends CreditedRamImage {
  /** the keeper's link at attach */
  readonly link: RamLink;
  readonly fd: number;
  /** its whole size is reserved, because the kernel may fill its holes */
  readonly isReserved: boolean;
}

/** short, because a write waits for the grant */
const GRANT_LOCK_MS = 300;
const LOCK_OPTIONS = { mayGoWithout: true, limitMs: 2_000 };

export class ServerRamImages implements Grants {
  readonly #runtimeDir: string;
  readonly #keeperPid: number;
  readonly #links: OwnLinks;
  readonly #served: () => Iterable<ServedRamImage>;
  #isPublic = false;

  /** @param served the ram images of all disks, one for each disk */
  constructor(
    where: { runtimeDir: string; keeperPid: number },
    books: Bookkeeping,
    served: () => Iterable<ServedRamImage>,
  ) {
    this.#runtimeDir = where.runtimeDir;
    this.#keeperPid = where.keeperPid;
    this.#links = new OwnLinks(where.runtimeDir, books, where.keeperPid);
    this.#served = served;
  }

  /** Publishes links from now on: those of the dead keeper lead nowhere. */
  async publish(): Promise<void> {
    this.#isPublic = true;
    const publishAll = (): void => {
      for (const memory of this.#served()) this.#links.keep(this.#linkTo(memory));
      cleanLinks(this.#runtimeDir);
    };
    await withRamLock(this.#runtimeDir, publishAll, LOCK_OPTIONS).catch((error: unknown) => console.error(error));
  }

  /** Writes our links again, if somebody has removed them. */
  rewrite(): Promise<void> {
    return this.#links.rewriteAll();
  }

  /** A disk is about to close its ram image. If another disk has it too, the link leads to that one from now on. */
  drop({ id }: CreditedRamImage): void {
    if (!this.#links.has(id)) return;
    const other = [...this.#served()].find((memory) => memory.id === id);
    if (other === undefined) this.#links.remove(id);
    else if (this.#isPublic) this.#links.keep(this.#linkTo(other));
    else this.#links.note(this.#linkTo(other));
  }

  grant(memory: CreditedRamImage, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number> {
    const growth = { unspentBytes, wantedBytes, neededBytes };
    this.#noteLink(memory.id);
    // the keeper may answer at any moment, and records grants itself: this only computes one, which needs no lock
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

  #linkTo({ id, link, fd, isReserved }: ServedRamImage): RamLink {
    // a save may have moved the ram image to another file since attach: the keeper's link, if it exists, tells which
    const moved = withMoved(link, linkOf(this.#runtimeDir, id, this.#keeperPid) ?? link);
    const reservedBytes = isReserved ? link.sizeBytes : 0;
    return { ...moved, ...linkTarget(fd), reservedBytes, grantedBytes: 0 };
  }
}
