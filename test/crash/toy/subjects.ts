/** Toy images to put under test. */
import { patternBytes } from '../../conformance/pattern.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Subject } from '../subject.js';
import { toyDriver } from './driver.js';
import { emptyImage, type Mistake, TABLE_SPAN, UNIT } from './format.js';
import { judgeToy } from './judge.js';

/** three tables, the last one cut, and a part of a unit */
const SIZE = 2 * TABLE_SPAN + 9 * UNIT + 700;
/** shorter than the disk */
const BACKING_BYTES = TABLE_SPAN + 3 * UNIT + 300;

/** A toy image without data, over nothing and over a backing file. */
export function toySubjects(mistake?: Mistake): Subject[] {
  const shape = { driver: toyDriver(mistake), unitBytes: UNIT, tableBytes: TABLE_SPAN, judge: judgeToy };
  const backing = patternBytes(0, BACKING_BYTES, 99);
  const content = new SparseBytes(SIZE);
  content.write(backing, 0);
  const file = emptyImage(SIZE);
  return [
    { ...shape, name: 'toy', files: { file }, content: new SparseBytes(SIZE) },
    { ...shape, name: 'toy over a backing file', files: { file, backing: SparseBytes.from(backing) }, content },
  ];
}
