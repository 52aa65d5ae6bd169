/**
 * What `import … from 'fusetap/conformance'` gives: the suite, and a factory of disks for drivers that read an image
 * file as it is.
 */
export { driverFactory, type FactoryOptions } from './driver-factory.js';
export { fillPattern, type Piece, patternBytes, pieceBytes } from './pattern.js';
export {
  type DiskAbilities,
  type DiskFactory,
  type DiskRequest,
  diskSuite,
  type SuiteOptions,
  type SuiteTest,
  type TestDisk,
} from './suite.js';
