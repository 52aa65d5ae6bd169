import t from 'tap';
import aio from '../../drivers/aio/index.js';
import { driverFactory } from '../conformance/driver-factory.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';

const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };

diskSuite({ name: 'aio', test: t, factory: driverFactory(aio), abilities: { ...abilities, growth: true } });
diskSuite({ name: 'aio in a thread', test: t, factory: driverFactory(aio, { wrap: bySyncCalls }), abilities });
