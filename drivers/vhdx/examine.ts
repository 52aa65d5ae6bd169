/** Describes VHDX images. */
import type { Examiner, NamedFile } from '../examining/examiner.js';
import { openVhdx } from './open-image.js';

const vhdx = {
  async describe(image) {
    const { header, metadata, logEntries } = await openVhdx(image);
    const { size, blockBytes, logicalSectorBytes, physicalSectorBytes, isFixed, parent } = metadata;
    const names: NamedFile[] = [];
    if (parent?.relativePath) names.push({ role: 'backing', name: parent.relativePath, format: 'vhdx' });
    return {
      size,
      facts: {
        ...{ blockBytes, logicalSectorBytes, physicalSectorBytes },
        type: parent !== null ? 'differencing' : isFixed ? 'fixed' : 'dynamic',
        log: logEntries === 0 ? 'empty' : `${logEntries} ${logEntries === 1 ? 'entry' : 'entries'} to replay`,
        parent: parent !== null,
        creator: header.creator,
        dataWriteGuid: header.dataWriteGuid,
        parentDataWriteGuid: parent?.linkages[0] ?? null,
      },
      names,
    };
  },
} satisfies Examiner;

export default vhdx;
