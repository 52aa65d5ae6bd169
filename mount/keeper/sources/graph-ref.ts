/** The tree of a disk with what the keeper has open for it, in the form of the server's commands. */
import { basename } from 'node:path';
import type { NodeSpec } from '../../../drivers/graph.js';
import { identityOf, type OpenedImage } from '../../images/open-image.js';
import type { RamImage, RamImages } from '../../ram/ram-images.js';
import type { GraphRef, ImageRef, MemoryRef } from '../../server/commands.js';
import type { KeptDisk } from '../vbds/kept-disks.js';
import type { SourceFile } from '../vbds/vbd.js';

export interface HeldTree {
  readonly graph: NodeSpec;
  readonly files: ReadonlyMap<string, SourceFile>;
  readonly memories: ReadonlyMap<string, RamImage>;
  /** the nodes that were repaired, by path */
  readonly repaired: readonly string[];
  readonly kept?: KeptDisk | null;
}

export function graphRef({ graph, files, memories, repaired, kept }: HeldTree, ramImages: RamImages): GraphRef {
  return {
    graph,
    ...(repaired.length > 0 && { repaired }),
    ...(kept != null && { kept: kept.ref }),
    files: mapped(files, ({ image, mode }) => ({ ...imageRef(image), mode })),
    memories: mapped(memories, (memory): MemoryRef => {
      return { fd: memory.fd, link: ramImages.linkOf(memory), state: memory.state };
    }),
  };
}

function mapped<Value, Result>(
  entries: ReadonlyMap<string, Value>,
  change: (value: Value) => Result,
): Record<string, Result> {
  return Object.fromEntries([...entries].map(([path, value]) => [path, change(value)]));
}

/** An image in the form of the server's commands. */
export function imageRef(image: OpenedImage): ImageRef {
  const { fd, path, realPath, sizeBytes, kind } = image;
  return { fd, path, name: basename(realPath), sizeBytes, kind, identity: identityOf(image) };
}
