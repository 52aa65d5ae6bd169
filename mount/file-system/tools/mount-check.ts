/**
 * Checks the result of a mount program in the kernel's mount table, because its exit status is not reliable: fuse2fs
 * may exit with 0 without a mount, and mount(8) may exit with 0 after a read-only mount of a writable vbd.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { type Mount, readMounts } from '../../../system/proc.js';
import { inOneLine } from './run-tool.js';

export interface Wanted {
  /** the file with the file system */
  readonly file: string;
  readonly readOnly: boolean;
}

export class MountCheck {
  readonly #directory: string;
  /** the mounts that were there before */
  readonly #before: ReadonlySet<number>;
  readonly #said: string[] = [];

  private constructor(directory: string, before: ReadonlySet<number>) {
    this.#directory = directory;
    this.#before = before;
  }

  /** @param directory its real path; nothing may be mounted yet */
  static async begin(directory: string): Promise<MountCheck> {
    return new MountCheck(directory, new Set((await mountsOn(directory)).map(({ id }) => id)));
  }

  /** Notes a line that the program wrote to stderr. */
  note(line: string): void {
    this.#said.push(line);
  }

  /** @returns remarks for the user @throws FusetapError if nothing was mounted */
  async finish({ file, readOnly }: Wanted): Promise<string[]> {
    const mount = (await mountsOn(this.#directory)).findLast(({ id }) => !this.#before.has(id));
    if (mount === undefined) {
      const why = inOneLine(this.#said) ?? 'the program succeeded, but mounted nothing';
      throw new FusetapError('FAILED', `cannot mount ${file} on ${this.#directory}: ${why}`, { path: this.#directory });
    }
    const isSaid = this.#said.some((line) => /read-only/i.test(line));
    if (readOnly || isSaid || !mount.readOnly) return this.#said;
    return [...this.#said, `${this.#directory} is mounted read-only, although the mode is w`];
  }
}

async function mountsOn(directory: string): Promise<Mount[]> {
  return (await readMounts('self')).filter(({ mountpoint }) => mountpoint === directory);
}
