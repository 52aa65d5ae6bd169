/** Examines VMDKs: what the descriptor says, and the header of the extent. There is no check. */
import type { Disk } from '../disk.js';
import type { Description, Examiner, NamedFile } from '../examining/examiner.js';
import type { Descriptor } from './descriptor.js';
import { imageIn } from './ova.js';
import { readVmdk } from './read-vmdk.js';
import { readEmbedded, readSparseHeader, type SparseHeader } from './sparse-header.js';

const vmdk = {
  async describe(file) {
    const image = await imageIn(file);
    const extent = await readSparseHeader(image);
    const isPart = extent !== null && (await readEmbedded(image, extent)) === null;
    return isPart ? { size: extent.size, facts: factsOf(extent), names: [] } : await describeWhole(image);
  },
} satisfies Examiner;

export default vmdk;

async function describeWhole(image: Disk): Promise<Description> {
  const { descriptor, header } = await readVmdk(image);
  const { extents, names, parent, cid, createType, adapterType, isTracked } = descriptor;
  const rows = extents.map(({ access, type, size, place }) => {
    return {
      access,
      type,
      size,
      name: place === null ? null : (names[place.file] ?? null),
      start: place?.start ?? null,
    };
  });
  const said = { createType, cid, parentCid: parent?.cid ?? null, adapterType, changesTracked: isTracked };
  return {
    size: header?.size ?? extents.reduce((sum, { size }) => sum + size, 0),
    facts: { ...said, ...(header !== null && factsOf(header)), extents: rows },
    names: namesOf(descriptor),
  };
}

function factsOf({ version, grainBytes, isCompressed, isUnclean }: SparseHeader): Description['facts'] {
  return { version, grainBytes, compressed: isCompressed, unclean: isUnclean };
}

function namesOf({ extents, names, parent }: Descriptor): NamedFile[] {
  const sparse = new Set(extents.flatMap(({ place }) => (place?.isSparse ? [place.file] : [])));
  const files = names.map((name, file): NamedFile => {
    return { role: 'extent', name, format: sparse.has(file) ? 'vmdk' : 'raw' };
  });
  return parent === null ? files : [...files, { role: 'backing', name: parent.name, format: 'vmdk' }];
}
