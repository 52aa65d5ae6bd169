/**
 * The running targets: each is started when the first job needs it, on an image of its own, and runs until the end, so
 * that no round includes a start.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import { fillImage } from './images.js';
import type { Served, Target } from './targets/target.js';
import type { Undo } from './undo.js';

export interface Site {
  /** where its images are; they are removed with the directory */
  directory: string;
  sizeBytes: number;
}

export interface Berth {
  readonly imagePath: string;
  readonly served: Served;
}

export class Fleet {
  readonly #workDirectory: string;
  readonly #undo: Undo;
  readonly #berths = new Map<string, Promise<Berth>>();
  #count = 0;

  /** @param workDirectory for sockets and mountpoints */
  constructor(workDirectory: string, undo: Undo) {
    this.#workDirectory = workDirectory;
    this.#undo = undo;
  }

  /** The target on its image at a site. If it could not be started, each further call fails with the same error. */
  berth(target: Target, site: Site): Promise<Berth> {
    const key = keyOf(target, site);
    const known = this.#berths.get(key) ?? this.#start(target, site);
    this.#berths.set(key, known);
    return known;
  }

  async #start(target: Target, { directory, sizeBytes }: Site): Promise<Berth> {
    const imagePath = join(directory, `${target.name}.img`);
    await fillImage(imagePath, sizeBytes);
    return { imagePath, served: await this.launch(target, imagePath, sizeBytes, this.#undo.nested()) };
  }

  /** Whether the target could not be started at a site. */
  async isLost(target: Target, site: Site): Promise<boolean> {
    const berth = this.#berths.get(keyOf(target, site));
    return (
      berth?.then(
        () => false,
        () => true,
      ) ?? false
    );
  }

  /** Starts a target on the caller's image. @throws FusetapError; then everything is undone */
  async launch(target: Target, imagePath: string, sizeBytes: number, undo: Undo): Promise<Served> {
    const directory = join(this.#workDirectory, `${target.name}-${this.#count++}`);
    await mkdir(directory, { mode: 0o700 });
    try {
      return await target.start({ imagePath, sizeBytes, directory, undo });
    } catch (error) {
      const errors = await undo.run();
      if (errors.length === 0) throw error;
      const text = [error, ...errors].map((each) => (each as Error).message).join('; ');
      throw new FusetapError('FAILED', text, { cause: error });
    }
  }
}

const keyOf = ({ name }: Target, { directory }: Site): string => `${directory}\0${name}`;
