/** Examines VHDs: what the footer and the header say, and whether the table is sound. */
import type { Disk } from '../disk.js';
import type { Description, Examiner, NamedFile } from '../examining/examiner.js';
import { restoreFooter } from './allocation-table.js';
import { checkVhd } from './check.js';
import { type DynamicHeader, readDynamicHeader } from './dynamic-header.js';
import { type Footer, readFooter } from './footer.js';

const vhd = {
  async describe(image) {
    const footer = await readFooter(image);
    const header = footer.type === 'fixed' ? null : await readDynamicHeader(image, footer);
    const { size, uuid } = footer;
    return { size, identity: uuid, facts: factsOf(footer, header), names: namesOf(header) };
  },
  checker: {
    check: checkVhd,
    /** Nothing leaks in a VHD. A footer that a crash has left out is written again. */
    async repairLeaks(image: Disk) {
      const footer = await readFooter(image);
      if (footer.type === 'fixed') return;
      await restoreFooter({ image, footer, header: await readDynamicHeader(image, footer) });
    },
  },
} satisfies Examiner;

export default vhd;

function factsOf(footer: Footer, header: DynamicHeader | null): Description['facts'] {
  const { type, creator, uuid, isHidden, isAtEnd, sizeByGeometry } = footer;
  return {
    ...{ type, creator: creator.replace(/[\0 ]+$/, ''), uuid, sizeByGeometry },
    hidden: isHidden,
    footerAtEnd: isAtEnd,
    ...(header && { blockBytes: header.blockBytes, blocks: header.blocks, parentUuid: header.parent?.uuid ?? null }),
  };
}

function namesOf(header: DynamicHeader | null): NamedFile[] {
  const [name] = header?.parent?.names ?? [];
  if (name === undefined) return [];
  return [{ role: 'backing', name, format: header?.parent?.uuid === null ? 'raw' : 'vpc' }];
}
