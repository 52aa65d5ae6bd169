/**
 * The files and memories of a disk in the server: descriptors that the keeper has sent, by their paths in the tree of the
 * disk. A file that has several places in the tree is one descriptor.
 */
import { closeAll } from '../../drivers/close-fd.js';
import { defined } from '../../drivers/defined.js';
import type { ImageFile, Kept } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import type { NodeMemory, OpenedGraph } from '../../drivers/graph/open-graph.js';
import { keepOnExec } from '../../system/libc.js';
import { takeMarks } from '../images/claim-image.js';
import { markDevice } from '../images/device-claim.js';
import type { Mode } from '../images/mode.js';
import type { GraphRef, ImageRef } from './commands.js';
import { asReadOnly, type PassedFds } from './passed-fds.js';

export class TakenFiles {
  readonly refs: Readonly<Record<string, ImageRef>>;
  /** all descriptors; the owner of this object closes them */
  readonly fds: number[] = [];
  readonly #disk: GraphRef;
  readonly #passed: PassedFds;
  /** by the numbers that the descriptors have in the keeper */
  readonly #byKeeperFd = new Map<number, number>();
  readonly files: Record<string, ImageFile> = {};
  readonly memories: Record<string, NodeMemory> = {};
  /** what drivers of an earlier server have kept */
  readonly kept: Record<string, Kept> = {};

  private constructor(disk: GraphRef, passed: PassedFds) {
    this.#disk = disk;
    this.#passed = passed;
    this.refs = disk.files;
  }

  /**
   * Takes the descriptors of a disk. If that fails, none is left.
   * @param mode of the vbd; `r`: all files are opened for reading
   * @param claims the claims of its files are taken for this process too, so that they last as long as either process has
   *   the files open; false if only the keeper claims them
   * @throws FusetapError FAILED if a descriptor did not arrive; BUSY if another process has locked a file meanwhile
   */
  static async take(disk: GraphRef, passed: PassedFds, mode: Mode, claims = true): Promise<TakenFiles> {
    const taken = new TakenFiles(disk, passed);
    try {
      for (const [path, ref] of Object.entries(disk.files)) {
        await taken.#takeFile(path, ref, { mode: mode === 'r' ? 'r' : (ref.mode ?? mode), claims });
      }
      for (const [path, { fd, state }] of Object.entries(disk.memories)) {
        // only the clients of the top write
        const isRead = path !== '' || mode === 'r';
        taken.memories[path] = { memory: { fd: taken.#takeMemory(fd, isRead) }, state };
      }
      taken.#takeKept();
      return taken;
    } catch (error) {
      void closeAll(taken.fds);
      throw error;
    }
  }

  get filePaths(): Map<number, string> {
    return new Map(Object.entries(this.files).map(([path, { fd }]) => [fd, path]));
  }

  /** What the drivers are given. */
  opened(readOnly: boolean): OpenedGraph {
    const { graph, repaired = [], writes } = this.#disk;
    return { graph, files: this.files, memories: this.memories, repaired, readOnly, ...defined({ writes }) };
  }

  /** The descriptor of a file; null if there is no file. */
  fdOf(ref: ImageRef | undefined): number | null {
    return ref === undefined ? null : (this.#byKeeperFd.get(ref.fd) ?? null);
  }

  async #takeFile(
    path: string,
    ref: ImageRef,
    { mode, claims }: { readonly mode: Mode; readonly claims: boolean },
  ): Promise<void> {
    const known = this.#byKeeperFd.get(ref.fd);
    const fd = known ?? this.#passed.take(ref.fd, mode === 'r');
    const { path: asked, name, sizeBytes, kind } = ref;
    const image = { fd, path: asked, sizeBytes, kind, ...defined({ name }) };
    this.files[path] = image;
    if (known !== undefined) return;
    this.fds.push(fd);
    this.#byKeeperFd.set(ref.fd, fd);
    // see image-fds.ts: an orphan starts programs too
    keepOnExec(fd);
    if (!claims) return;
    // the marks stay as long as either process has the image open
    if (!this.#passed.areShared && !takeMarks(fd, mode)) {
      throw new FusetapError('BUSY', `another process has just locked the image for writing: ${ref.path}`);
    }
    const marked = ref.kind === 'block' ? await markBlock(image, mode) : null;
    if (marked !== null) this.fds.push(marked);
  }

  #takeKept(): void {
    const { kept } = this.#disk;
    if (kept === undefined) return;
    for (const [node, { facts, fds }] of Object.entries(kept.nodes)) {
      this.kept[node] = { facts, fds: fds.map((fd) => this.#takeMemory(fd, false)) };
    }
    // its locks last as long as this process has it, too
    this.#takeMemory(kept.claim.fd, false);
  }

  #takeMemory(keeperFd: number, isRead: boolean): number {
    const known = this.#byKeeperFd.get(keeperFd);
    if (known !== undefined) return known;
    const taken = this.#passed.take(keeperFd, isRead);
    const fd = isRead && this.#passed.areShared ? asReadOnly(taken) : taken;
    this.fds.push(fd);
    this.#byKeeperFd.set(keeperFd, fd);
    return fd;
  }
}

/** Claims the device for the server too: the keeper's claim ends if the keeper dies. */
async function markBlock({ fd, path }: ImageFile, mode: Mode): Promise<number | null> {
  try {
    return await markDevice(fd, path, mode);
  } catch (error) {
    console.error(`marking ${path}:`, error);
    return null;
  }
}

/** Calls `work` with a disk whose files are open for reading, and closes them. */
export function whileOpen<Result>(
  disk: GraphRef,
  passed: PassedFds,
  work: (opened: OpenedGraph) => Promise<Result>,
): Promise<Result> {
  return whileTaken(TakenFiles.take(disk, passed, 'r', false), (taken) => work(taken.opened(true)));
}

/** The same, but the files that the vbd writes are open for writing. The keeper has claimed them. */
export function whileOpenForWriting<Result>(
  disk: GraphRef,
  passed: PassedFds,
  work: (opened: OpenedGraph) => Promise<Result>,
): Promise<Result> {
  return whileTaken(TakenFiles.take(disk, passed, 'w', false), (taken) => work(taken.opened(false)));
}

async function whileTaken<Result>(
  taking: Promise<TakenFiles>,
  work: (taken: TakenFiles) => Promise<Result>,
): Promise<Result> {
  const taken = await taking;
  try {
    return await work(taken);
  } finally {
    await closeAll(taken.fds);
  }
}
