/** What the classes that write a qcow2 image share. */
import type { Disk } from '../../disk.js';
import type { Barrier } from '../../lookup/barrier.js';
import type { LookupMap } from '../../lookup/lookup-map.js';
import type { Reader } from '../../lookup/reader.js';
import type { UnitLock } from '../../lookup/unit-lock.js';
import type { Found } from '../reading/find.js';
import type { L2Tables } from '../reading/l2-tables.js';
import type { Owned } from './owned.js';

export interface WriterParts {
  /** of the disk */
  readonly size: number;
  readonly lock: UnitLock;
  readonly tables: L2Tables;
  readonly reader: Reader<Found>;
  readonly owned: Owned;
  readonly barrier: Barrier;
  /** the image, or its data file */
  readonly data: Disk;
  /** the data file has the bytes of the disk, and others read it without the tables */
  readonly isRawData: boolean;
  readonly map: LookupMap | null;
}
