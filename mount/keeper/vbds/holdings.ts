/**
 * What a vbd holds: files with their claims, ram images, places in the ledger. They are let go in the reverse of the order in
 * which they were taken. A failure is logged, and keeps none of the others from being let go.
 */
import { closeAll } from '../../../drivers/close-fd.js';
import { type Claim, claimImage, type DescribePid } from '../../images/claim-image.js';
import type { Mode } from '../../images/mode.js';
import { identityOf, type OpenedImage, type OwnBus, openImage } from '../../images/open-image.js';

/** A file that is asked for. */
export interface FileWish {
  readonly path: string;
  readonly mode: Mode;
  readonly ownBus: OwnBus;
  readonly describePid: DescribePid;
}

/** An opened file with its claim. Two holdings share one while a vbd is being swapped to an image that it has already. */
class HeldFile {
  readonly image: OpenedImage;
  readonly claim: Claim;
  #users = 0;

  constructor(image: OpenedImage, claim: Claim) {
    this.image = image;
    this.claim = claim;
  }

  use(): void {
    this.#users += 1;
  }

  /** @returns the error of close(2): what was written may not have come to the disk */
  async release(usedByServer: boolean): Promise<Error | null> {
    this.#users -= 1;
    if (this.#users > 0) return null;
    // the locks of an open file description last until its last descriptor is closed; the server has one
    if (!usedByServer) this.claim.release();
    return await closeAll([this.image.fd]);
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
   * Opens a file and claims it (rule 8). A file is claimed once: one that is held already, here or in `other`, is shared.
   * @throws FusetapError see openImage and claimImage; nothing is held then
   */
  async file({ path, mode, ownBus, describePid }: FileWish, other?: Holdings): Promise<OpenedImage> {
    const image = await openImage(path, mode, ownBus);
    const identity = identityOf(image);
    const known = this.#files.get(identity) ?? other?.find(identity);
    if (known?.claim.mode === mode) {
      await closeAll([image.fd]);
      this.#hold(identity, known);
      return known.image;
    }
    try {
      this.#hold(identity, new HeldFile(image, await claimImage(image, mode, { describePid })));
    } catch (error) {
      await closeAll([image.fd]);
      throw error;
    }
    return image;
  }

  /** a file that is held, to be shared */
  find(identity: string): HeldFile | undefined {
    return this.#files.get(identity);
  }

  #hold(identity: string, file: HeldFile): void {
    file.use();
    this.#files.set(identity, file);
    this.#held.push({ what: file.image.path, release: (usedByServer) => file.release(usedByServer) });
  }

  /**
   * Takes over the care for something.
   * @param what for the log
   * @param release lets go of it; is told whether a server that does not answer may still use it
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
   * Lets go of all, and holds nothing from then on. All but the closing of files is done when this returns.
   * @param usedByServer a server that does not answer may still use what is held: files stay locked until it has ended
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

async function releaseLogged({ what, release }: Held, usedByServer: boolean): Promise<Error | null> {
  try {
    return await release(usedByServer);
  } catch (error) {
    console.error(`letting go of ${what}:`, error);
    return null;
  }
}
