/** The suite over bases of all kinds, served by the driver alone and as threads serve the map. */
import t from 'tap';
import snapshot from '../../drivers/snapshot/index.js';
import { byMap, type Served } from '../conformance/by-map.js';
import { driverFactory } from '../conformance/driver-factory.js';
import { diskSuite } from '../conformance/suite.js';
import { whyNoQemu } from './qemu.js';
import { inBuffer, inFile, inQcow2, inSegments, snapshotOver } from './snapshot/bases.js';

const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: false };
const small = { maxSizeBytes: 2 ** 30, holes: false, shrink: false };
t.setTimeout(240_000);

diskSuite({ name: 'snapshot', test: t, factory: driverFactory(snapshot), abilities });

for (const [over, makeBase, able] of [
  ['a file', inFile, abilities],
  ['segments', inSegments(5), { ...abilities, holes: false }],
  ['more segments than a map has files', inSegments(300), small],
  ['a disk that threads cannot serve', inBuffer, small],
  ...(whyNoQemu() === false ? ([['a chain of qcow2', inQcow2, small]] as const) : []),
] as const) {
  diskSuite({ name: `snapshot over ${over}`, test: t, factory: snapshotOver(makeBase), abilities: able, runs: 6 });
  const counts: Served = { byMap: 0, byDriver: 0 };
  const factory = snapshotOver(makeBase, (raw) => byMap(raw, counts));
  diskSuite({ name: `snapshot over ${over}, by its map`, test: t, factory, abilities: able, runs: 6 });
  t.test(`the map over ${over} served some of it`, async (t) => {
    t.ok(counts.byMap > 100, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
  });
}
