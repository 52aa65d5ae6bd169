/**
 * The exports of 'fusetap/conformance': the suite, and a factory of disks for drivers whose disk has the same bytes as
 * its image file.
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
