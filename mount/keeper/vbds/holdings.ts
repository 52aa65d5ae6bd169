/**
 * The resources of a vbd: files with their claims, ram images, places in the ledger. They are released in the reverse
 * of the order in which they were taken. A failure is logged, and the others are released all the same.
 */
import { closeAll } from '../../../drivers/close-fd.js';
import { defined } from '../../../drivers/defined.js';
import { FusetapError, type Holder } from '../../../drivers/errors.js';
import { named } from '../../../drivers/quote.js';
import { type Claim, claimImage, type DescribePid, releaseMarks, takeMarks } from '../../images/claim-image.js';
import type { Mode } from '../../images/mode.js';
import { identityOf, type OpenedImage, type OwnBus, openImage } from '../../images/open-image.js';
import type { RecognizedEnds } from '../../images/refuse-foreign.js';

/** A file to open and claim. */
export interface FileWish {
  readonly path: string;
  readonly mode: Mode;
  readonly ownBus: OwnBus;
  readonly describePid: DescribePid;
  /** default: neither */
  readonly recognize?: RecognizedEnds;
  /** see OpenOptions */
  readonly below?: string;
  /** its name in messages; default: the path. The file has no bytes of a disk then, and may be empty */
  readonly shownAs?: string;
  /** called when the file is open, before it is claimed; it may throw */
  readonly check?: (image: OpenedImage) => void;
}

/** An open file with its claim. Two holdings share it while a vbd is swapped to an image that it has already. */
export class HeldFile {
  readonly image: OpenedImage;
  readonly claim: Claim;
  #users = 0;
  #usedByServer = false;
  /** the image open for writing, while it is claimed so */
  #raised: OpenedImage | null = null;

  constructor(image: OpenedImage, claim: Claim) {
    this.image = image;
    this.claim = claim;
  }

  use(): void {
    this.#users += 1;
  }

  /**
   * Claims a file of mode `r` for writing too, until `lower` is called.
   * @param open opens the same file for writing
   * @param isOwn see Claim.raise
   * @returns the image with another descriptor
   * @throws FusetapError see openAgainForWriting and Claim.raise; nothing has changed then
   */
  async raise(open: () => Promise<number>, isOwn: (holder: Holder) => boolean): Promise<OpenedImage> {
    if (this.#raised !== null) return this.#raised;
    // the claim is raised on the descriptor of the image, which must stay open while the claim waits for its turn
    this.use();
    try {
      return await this.#raise(open, isOwn);
    } finally {
      await this.release(this.#usedByServer);
    }
  }

  async #raise(open: () => Promise<number>, isOwn: (holder: Holder) => boolean): Promise<OpenedImage> {
    const fd = await open();
    try {
      await this.claim.raise(isOwn);
      if (this.#users === 1) throw new FusetapError('FAILED', `${named(this.image.path)} was closed meanwhile`);
      // a server that outlives the keeper has the claim by this descriptor
      takeMarks(fd, 'w');
    } catch (error) {
      await closeAll([fd]);
      throw error;
    }
    this.#raised = { ...this.image, fd };
    return this.#raised;
  }

  /** The server must have closed what `raise` has opened. */
  async lower(): Promise<void> {
    if (this.#raised === null) return;
    const { fd } = this.#raised;
    this.#raised = null;
    releaseMarks(fd);
    await closeAll([fd]);
    if (this.#users > 0) this.claim.lower();
  }

  /** @returns the error of close(2): written data may be lost */
  async release(usedByServer: boolean): Promise<Error | null> {
    this.#users -= 1;
    this.#usedByServer ||= usedByServer;
    if (this.#users > 0) return null;
    const raisedFds = this.#raised === null ? [] : [this.#raised.fd];
    this.#raised = null;
    // the server may have a descriptor of the same open file description: the locks last until the last one is closed
    if (!this.#usedByServer) {
      this.claim.release();
      raisedFds.forEach(releaseMarks);
    }
    return await closeAll([this.image.fd, ...raisedFds]);
  }
}

interface Held {
  readonly what: string;
  readonly release: (usedByServer: boolean) => Promise<Error | null>;
}

export class Holdings {
  readonly #held: Held[] = [];
  /** by identity */
  readonly #files = new Map<string, HeldFile>();

  /**
   * Opens a file and claims it (rule 8). A file is claimed once: if it is open already, here or in `other`, it is
   * shared. If `other` has it for writing and is released later, it is claimed for reading beside that.
   * @throws FusetapError see openImage and claimImage; nothing is taken then
   */
  async file(wish: FileWish, other?: Holdings): Promise<OpenedImage> {
    const { path, mode, ownBus, describePid, recognize = 'neither', below, shownAs } = wish;
    const opened = await openImage(path, mode, ownBus, {
      ...{ recognize, mayBeEmpty: shownAs !== undefined },
      ...defined({ below }),
    });
    const image = shownAs === undefined ? opened : { ...opened, path: shownAs };
    const identity = identityOf(image);
    await checked(image, wish.check);
    const known = this.#files.get(identity) ?? other?.find(identity);
    // a disk that writes a file may also read it
    if (known?.claim.mode === mode || (known !== undefined && mode === 'r' && this.#files.has(identity))) {
      await closeAll([image.fd]);
      this.#hold(identity, known);
      return known.image;
    }
    // a file that is claimed for writing has no other users that conflict with mode r
    const mayShareWith = known?.claim.mode === 'w' && mode === 'r' ? isOfBus : undefined;
    try {
      this.#hold(identity, new HeldFile(image, await claimImage(image, mode, { describePid, mayShareWith })));
    } catch (error) {
      await closeAll([image.fd]);
      throw error;
    }
    return image;
  }

  /** a file that is open already, to be shared */
  find(identity: string): HeldFile | undefined {
    return this.#files.get(identity);
  }

  #hold(identity: string, file: HeldFile): void {
    file.use();
    this.#files.set(identity, file);
    this.#held.push({ what: file.image.path, release: (usedByServer) => file.release(usedByServer) });
  }

  /**
   * Takes ownership of a resource.
   * @param what its name in the log
   * @param release releases it; its argument tells whether a server that does not answer may still use it
   */
  own(what: string, release: (usedByServer: boolean) => void): void {
    this.#held.push({
      what,
      release: async (usedByServer) => {
        release(usedByServer);
        return null;
      },
    });
  }

  /**
   * Releases everything. When this returns its promise, all is released but for files that are being closed.
   * @param usedByServer a server that does not answer may still use the resources: files stay locked until it has
   *   exited
   * @returns the first error of close(2)
   */
  async release({ usedByServer = false } = {}): Promise<Error | null> {
    const closings = this.#held
      .splice(0)
      .reverse()
      .map((held) => releaseLogged(held, usedByServer));
    this.#files.clear();
    const errors = await Promise.all(closings);
    return errors.find((error) => error !== null) ?? null;
  }
}

function isOfBus({ bus }: Holder): boolean {
  return bus !== undefined;
}

async function checked(image: OpenedImage, check: FileWish['check']): Promise<void> {
  try {
    check?.(image);
  } catch (error) {
    await closeAll([image.fd]);
    throw error;
  }
}

async function releaseLogged({ what, release }: Held, usedByServer: boolean): Promise<Error | null> {
  try {
    return await release(usedByServer);
  } catch (error) {
    console.error(`releasing ${what}:`, error);
    return null;
  }
}
