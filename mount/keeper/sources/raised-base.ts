/**
 * The base of a vbd, open and claimed for writing while the vbd is committed: those of its files that it would write if it
 * was attached itself. What is below them stays open for reading.
 */
import { type BigIntStats, fstat } from 'node:fs';
import { promisify } from 'node:util';
import { FusetapError, type Holder } from '../../../drivers/errors.js';
import type { GraphPlan } from '../../../drivers/graph/plan.js';
import { type FileSpec, isFile, type NodeSpec, pathOf, simpleGraph } from '../../../drivers/graph.js';
import { named } from '../../../drivers/quote.js';
import { locate, readMounts } from '../../../system/proc.js';
import type { Answering } from '../../images/answering.js';
import { openAgainForWriting } from '../../images/open-again.js';
import { identityOf, type OpenedImage } from '../../images/open-image.js';
import type { GraphRef } from '../../server/commands.js';
import type { HeldFile } from '../vbds/holdings.js';
import type { SourceFile, Vbd, VbdSource } from '../vbds/vbd.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { type HeldTree, imageRef } from './graph-ref.js';

const fstatAsync = promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>;

/** The base of a vbd, which is open for reading. */
export interface Base {
  /** its role in the top of the tree, and so its path */
  readonly role: string;
  readonly below: NodeSpec | FileSpec;
  /** of the base alone; null if it is a file */
  readonly plan: GraphPlan | null;
}

interface RaisedFile {
  /** in the tree of the vbd */
  readonly path: string;
  readonly held: HeldFile;
  /** open for writing */
  readonly image: OpenedImage;
}

export class RaisedBase {
  readonly #source: VbdSource;
  readonly #base: Base;
  readonly #files: readonly RaisedFile[];

  private constructor(source: VbdSource, base: Base, files: readonly RaisedFile[]) {
    this.#source = source;
    this.#base = base;
    this.#files = files;
  }

  /** @throws FusetapError see HeldFile.raise; UNSUPPORTED if nothing of it can be written. Nothing has changed then */
  static async raise(context: AttachContext, vbd: Vbd, base: Base): Promise<RaisedBase> {
    const { source, vdev } = vbd;
    const { bus } = context.facts(vbd);
    const isOwn = (holder: Holder): boolean => holder.bus === bus && holder.vdev === vdev;
    const files = writtenFiles(source, base);
    if (files.size === 0) throw cannotBeWritten(vbd);
    refuseTwice(source, files);
    const raised: RaisedFile[] = [];
    try {
      for (const [path, { image }] of files) {
        const held = source.holdings.find(identityOf(image));
        if (held === undefined) throw new RangeError(`the file ${path} of ${vbd.vdev} is not open`);
        const open = (): Promise<number> => openAgainForWriting(image, ownBus(context));
        raised.push({ path, held, image: await held.raise(open, isOwn) });
      }
    } catch (error) {
      for (const { held } of raised) await held.lower();
      throw error;
    }
    return new RaisedBase(source, base, raised);
  }

  /** The tree of the base alone, to be repaired. */
  get tree(): HeldTree {
    const { role, below } = this.#base;
    const files = new Map(this.#source.files);
    for (const { path, image } of this.#files) files.set(path, { image, mode: 'w', grows: true });
    const memories = partOf(this.#source.memories, role);
    if (!isFile(below)) return { graph: below, files: partOf(files, role), memories, repaired: [] };
    const file = files.get(role);
    return { graph: simpleGraph('aio', below.file), files: new Map(file && [['file', file]]), memories, repaired: [] };
  }

  /** The disk of the vbd with the base open for writing. @param repaired the nodes of the base that were repaired */
  in(disk: GraphRef, repaired: readonly string[]): GraphRef {
    const { role } = this.#base;
    const written = this.#files.map(({ path, image }) => [path, { ...imageRef(image), mode: 'w' as const }]);
    return {
      ...disk,
      files: { ...disk.files, ...Object.fromEntries(written) },
      repaired: [...(disk.repaired ?? []), ...repaired.map((node) => (node === '' ? role : pathOf(role, node)))],
      writes: role,
    };
  }

  /** Takes over the sizes that the files have now. @throws FusetapError BUSY if one does not answer */
  async remeasure(answering: Answering): Promise<void> {
    for (const { held, image } of this.#files) {
      if (image.kind === 'block') continue;
      const { path, realPath, fd } = held.image;
      const at = locate(await readMounts('self'), realPath);
      const { size } = await answering.withinLimit({ path, at }, () => fstatAsync(fd, { bigint: true }));
      held.image.sizeBytes = Number(size);
      image.sizeBytes = Number(size);
    }
  }

  /** The server must have closed the files. */
  async lower(): Promise<void> {
    for (const { held } of this.#files) await held.lower();
  }
}

/** The files that the base would write, by their paths in the tree of the vbd. */
export function writtenFiles({ files }: VbdSource, { role, plan }: Base): Map<string, SourceFile> {
  const paths = plan === null ? [role] : writtenPaths(plan).map((path) => pathOf(role, path));
  return new Map(
    paths.flatMap((path) => {
      const file = files.get(path);
      return file === undefined ? [] : [[path, file] as const];
    }),
  );
}

function writtenPaths({ files }: GraphPlan): string[] {
  return Object.entries(files).flatMap(([path, { isRead }]) => (isRead ? [] : [path]));
}

/** A file that is written must be in no other place of the tree: a disk there would have the old bytes. */
function refuseTwice({ files }: VbdSource, written: ReadonlyMap<string, SourceFile>): void {
  for (const [path, { image }] of written) {
    const isTwice = [...files].some(([at, other]) => at !== path && identityOf(other.image) === identityOf(image));
    if (!isTwice) continue;
    throw new FusetapError('UNSUPPORTED', `${named(image.path)} is in two places of the disk`, { path: image.path });
  }
}

/** The entries below a node, by the paths that they have there. */
function partOf<Value>(entries: ReadonlyMap<string, Value>, node: string): Map<string, Value> {
  const prefix = `${node}/`;
  const below = [...entries].filter(([path]) => path.startsWith(prefix));
  return new Map(below.map(([path, value]) => [path.slice(prefix.length), value]));
}

function cannotBeWritten({ vdev }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `the base of ${vdev} is in memory, or can only be read`, {
    hint: 'fusetap save copies the disk to a file',
  });
}
