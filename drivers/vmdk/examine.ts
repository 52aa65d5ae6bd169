/** Examines VMDKs: what the descriptor and the header of the extent say, and whether the tables of a sparse extent are sound. */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import type { CheckResult, Description, ExamineOptions, Examiner, NamedFile } from '../examining/examiner.js';
import { checkSparse } from './check.js';
import type { Descriptor } from './descriptor.js';
import { repairTables } from './grain-map.js';
import { imageIn } from './ova.js';
import { readVmdk } from './read-vmdk.js';
import { readEmbedded, readSparseHeader, type SparseHeader } from './sparse-header.js';
import { writableParts } from './write-rules.js';

const vmdk = {
  async describe(file) {
    const image = await imageIn(file);
    const extent = await readSparseHeader(image);
    const isPart = extent !== null && (await readEmbedded(image, extent)) === null;
    return isPart ? { size: extent.size, facts: factsOf(extent), names: [] } : await describeWhole(image);
  },
  checker: {
    check: checkVmdk,
    /** Nothing leaks in a VMDK. Copies of tables that a crash has left behind are made like their tables. */
    async repairLeaks(file, options) {
      const { corruptionCount } = await checkVmdk(file, options);
      if (corruptionCount > 0) throw new FusetapError('DENIED', 'its tables or grains are damaged');
      const parts = await writableParts(await imageIn(file));
      if (parts !== null) await repairTables(parts);
    },
  },
} satisfies Examiner;

export default vmdk;

async function checkVmdk(file: Disk, options?: ExamineOptions): Promise<CheckResult> {
  const image = await imageIn(file);
  const header = await readSparseHeader(image);
  if (header !== null) return await checkSparse(image, header, options);
  await readVmdk(image);
  throw new FusetapError('UNSUPPORTED', 'a VMDK whose extents are other files has no check', { operation: 'no check' });
}

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
    ...(cid !== null && { identity: cid }),
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
