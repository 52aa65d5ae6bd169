/**
 * Counts all references to the clusters of an image, but for those of its refcounts: what they must be follows from these.
 *
 *      header ──► L1 table (active) ──────┐
 *             ├─► snapshots ──► L1 tables ┴─► L2 tables ──► data, compressed streams
 *             └─► bitmaps ──► tables ──► bits
 */
import type { Disk } from '../../disk.js';
import type { ClusterStatistics, ExamineOptions } from '../../examining/examiner.js';
import { Findings } from '../../examining/findings.js';
import type { Header } from '../format/header.js';
import { countBitmaps } from './count-bitmaps.js';
import { countSnapshots } from './count-snapshots.js';
import { countTables } from './count-tables.js';
import type { Counting } from './counting.js';
import { References } from './references.js';

export interface Count extends Counting {
  /** see ReferenceOptions */
  readonly doubts: Findings;
  readonly statistics: ClusterStatistics;
}

/** @throws FusetapError if the image cannot be read; the signal's reason */
export async function countReferences(image: Disk, header: Header, options: ExamineOptions = {}): Promise<Count> {
  const [findings, doubts] = [new Findings(), new Findings()];
  const { clusterBytes, snapshots, l1, hasDataFile } = header;
  const trees = 1 + snapshots.count;
  const references = new References({ clusterBytes, imageBytes: image.size, trees, findings, doubts });
  const step = (share: number): void => {
    options.signal?.throwIfAborted();
    options.progress?.(Math.floor(share * image.size), image.size);
  };
  const counting = { image, header, references, findings, step };
  references.own(0, clusterBytes, 'the header');
  if (hasDataFile && snapshots.count > 0) findings.add('it has snapshots, although it has a data file');
  const active = { ...l1, isActive: true, what: 'the L1 table' };
  const statistics = await countTables(counting, [active, ...(await countSnapshots(counting))]);
  await countBitmaps(counting);
  return { ...counting, doubts, statistics };
}
