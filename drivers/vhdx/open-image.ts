/** Reads what finds everything else in a VHDX, each step through the one before: header, log, region table, metadata. */
import type { Disk } from '../disk.js';
import { type BlockShape, blockShape } from './blocks.js';
import { readHeader, type VhdxHeader } from './header.js';
import { readLog } from './log.js';
import { type Metadata, readMetadata } from './metadata.js';
import { type Area, readRegions } from './regions.js';
import { ReplayedImage } from './replayed-image.js';

export interface Vhdx {
  readonly file: Disk;
  readonly header: VhdxHeader;
  /** the entries of the log that were replayed in memory */
  readonly logEntries: number;
  /** after the replay */
  readonly image: ReplayedImage;
  readonly areas: readonly Area[];
  readonly metadata: Metadata;
  readonly shape: BlockShape;
}

/** @throws FusetapError USAGE not a VHDX; UNSUPPORTED a variant that is not served; FAILED it is damaged */
export async function openVhdx(file: Disk): Promise<Vhdx> {
  const header = await readHeader(file);
  const replay = await readLog(file, header.log);
  const image = new ReplayedImage(file, replay);
  const regions = await readRegions(image, header.log);
  const metadata = await readMetadata(image, regions.metadata);
  const shape = blockShape(metadata, regions);
  return { file, header, logEntries: replay?.entries ?? 0, image, areas: regions.areas, metadata, shape };
}
