/**
 * A vbd as its keeper knows it: all that is needed to report it, to open it in a new server, and to detach it.
 */
import type { FilterSpec } from '../../../drivers/filters/filter.js';
import { isSimple, type NodeSpec } from '../../../drivers/graph.js';
import type { SectorBytes } from '../../../drivers/partitions/index.js';
import type { BackingPolicy, DetachedVbd, DiskWish } from '../../control/interface.js';
import type { Mode } from '../../images/mode.js';
import { identityOf, type OpenedImage } from '../../images/open-image.js';
import type { RamImage } from '../../ram/ram-images.js';
import type { Holdings } from './holdings.js';
import type { KeptDisk } from './kept-disks.js';

/** A file of the bus. */
export interface VbdFile {
  readonly vdev: string;
  readonly nodeId: number;
  readonly ledgerIndex: number;
  /** opens get ENOENT: the detach of its vbd waits for the kernel, or knows that nobody uses it */
  leaving: boolean;
}

/** A partition of a vbd: a file of its own over a run of the same disk, attached, paused and detached with the vbd. */
export interface VbdPartition extends VbdFile {
  readonly slot: number;
  /** bytes from the start of the disk */
  readonly offset: number;
  readonly size: number;
  /** see drivers/partitions */
  readonly type: string;
  readonly name: string | null;
  /** it may only be read, whatever the mode of its disk */
  readonly readOnly: boolean;
  /** its place in the ledger */
  readonly holdings: Holdings;
}

/** A file of a disk: open and claimed as long as the vbd is attached. */
export interface SourceFile {
  readonly image: OpenedImage;
  /** how it is claimed */
  readonly mode: Mode;
  /** writes of the vbd change its size */
  readonly grows: boolean;
}

/** Where the bytes of a vbd come from. A swap replaces it as a whole. */
export interface VbdSource {
  /** of the top of the tree */
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
  /** with the files that its images name; below shared memory as it was asked for */
  readonly graph: NodeSpec;
  /** the path of the main file, as requested */
  readonly imagePath: string | null;
  /** the main file; null if the bytes are in memory */
  readonly image: OpenedImage | null;
  /** by their paths in the tree */
  readonly files: ReadonlyMap<string, SourceFile>;
  /** the memory of the top */
  readonly memory: RamImage | null;
  /** all memories, by the paths of their nodes */
  readonly memories: ReadonlyMap<string, RamImage>;
  /** the nodes that were repaired at this attach, by path */
  readonly repaired: readonly string[];
  /** the request said that the image is raw whatever it looks like */
  readonly raw: boolean;
  readonly backing: BackingPolicy;
  /** what its driver keeps beyond a server; null: it is on this machine */
  readonly kept: KeptDisk | null;
  /** the files with their claims, and the memories */
  readonly holdings: Holdings;
}

export interface Vbd extends VbdFile {
  readonly slot: number;
  readonly mode: Mode;
  readonly filters: readonly FilterSpec[];
  /** changed by resize */
  size: number;
  /** the only part that a swap changes */
  source: VbdSource;
  /** the resources besides its source: places in the ledger, the registration for passthrough */
  readonly holdings: Holdings;
  /** the path of the file that has the bytes of the disk as one run; null if there is none */
  windowFile: string | null;
  /** the id of its registration for passthrough, or null; decided at attach, constant while the bus is mounted */
  backingId: number | null;
  /** the id of its registration for mappings only (mode r), or null; a swap changes it */
  mapId: number | null;
  /** why the installed server could not open its disk: every request fails with EIO; null if it could */
  broken: string | null;
  /** requests wait until it is resumed */
  paused: boolean;
  /** the owners of the pause: see pauses.ts */
  pausedFor?: readonly string[];
  /** no request is under way, and none will be until the user resumes it; if omitted, false */
  pausedByUser?: boolean;
  /** the keeper detaches it when nobody uses it any more; if omitted, false */
  detachesWhenUnused?: boolean;
  /**
   * Set while its base is written, which changes the sizes of files: takes over those that they have now.
   * @throws FusetapError BUSY if a file does not answer
   */
  remeasure?: (() => Promise<void>) | undefined;
  /** the sectors in which its partition table counts; null: the table tells */
  readonly sectorBytes: SectorBytes | null;
  /** null if partitions were not requested; replaced as a whole when the table is read again */
  partitions: readonly VbdPartition[] | null;
  /** the flush and close that are under way, which cannot be stopped; see Detaching.takeAway */
  removal?: Promise<DetachedVbd>;
}

/** The files that clients of the vbd may write, if its mode allows that. */
export function writtenFiles({ files }: VbdSource): SourceFile[] {
  return [...files.values()].filter(({ mode }) => mode !== 'r');
}

export function hasFile({ files }: VbdSource, { fd }: Pick<OpenedImage, 'fd'>): boolean {
  return [...files.values()].some((file) => file.image.fd === fd);
}

/** The identities of all files, the main one first. */
export function identitiesOf({ image, files, kept }: VbdSource): string[] {
  const all = [...files.values()].map((file) => identityOf(file.image));
  const claimed = kept === null ? [] : [kept.claim.identity];
  return [...new Set([...(image === null ? [] : [identityOf(image)]), ...all, ...claimed])];
}

/** The descriptor of the file or memory that has the bytes of a disk as one run; undefined if there is none. */
export function bytesFd({ windowFile, source }: Pick<Vbd, 'windowFile' | 'source'>): number | undefined {
  return windowFile === null ? source.memory?.fd : source.files.get(windowFile)?.image.fd;
}

/** What to ask for to get the same source again. */
export function wishOf({ driver, imagePath, options, graph, raw, backing }: VbdSource): DiskWish {
  const disk = isSimple(graph) ? undefined : graph;
  return { driver, image: imagePath, options: { ...options }, disk, raw, backing };
}
