/** What a disk is, range by range: asked of the server, part by part. The server knows files by their paths in the tree. */
import type { MapResult } from '../../control/interface.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';

/** The first extents from an offset on. */
export async function map(bus: BusParts, vbd: Vbd, offset: number): Promise<MapResult> {
  const length = vbd.size - offset;
  if (length <= 0) return { extents: [], next: null };
  // a swap may replace it meanwhile
  const { files } = vbd.source;
  const asked = bus.server.request<'map'>({ op: 'map', nodeId: vbd.nodeId, offset, length });
  const { extents, next } = await bus.images.whileAnswering(bus, vbd, asked);
  const named = extents.map(({ file, ...extent }) => {
    const filename = file === null ? null : (files.get(file)?.image.path ?? null);
    return { ...extent, offset: filename === null ? null : extent.offset, filename };
  });
  return { extents: named, next };
}
