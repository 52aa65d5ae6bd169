import { execFileSync } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import aio from '../../drivers/aio/index.js';
import { frontDisk } from '../../drivers/disk.js';
import type { Driver, RawDisk } from '../../drivers/driver.js';
import sync from '../../drivers/sync/index.js';
import { driverFactory, makeImage } from '../conformance/driver-factory.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';

const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };

diskSuite({ name: 'sync', test: t, factory: driverFactory(sync), abilities: { ...abilities, growth: true } });
diskSuite({ name: 'sync in a thread', test: t, factory: driverFactory(sync, { wrap: bySyncCalls }), abilities });

// ext4 gives a written hole its place on the device when it writes it out: until then filefrag says delalloc
const EXT4_MAGIC = 0xef53;
const skip =
  statfsSync(tmpdir()).type === EXT4_MAGIC && hasFilefrag() ? false : 'needs filefrag, and ext4 for temporary files';

for (const [served, wrap] of [
  ['on the event loop', (raw: RawDisk) => raw],
  ['in a thread', bySyncCalls],
] as const) {
  t.test(`durability, ${served}`, { skip }, async (t) => {
    // another program may call sync(2) at the same moment
    let waits = false;
    for (let tries = 0; tries < 20 && !waits; tries++) waits = !(await isWrittenOut(aio, wrap, false));
    t.ok(waits, 'a write to aio waits in the page cache');
    t.equal(await isWrittenOut(aio, wrap, true), true, 'a durable write to aio is on the device');
    t.equal(await isWrittenOut(sync, wrap, false), true, 'each write to sync is on the device');
  });
}

async function isWrittenOut(driver: Driver, wrap: (raw: RawDisk) => RawDisk, durable: boolean): Promise<boolean> {
  const made = await makeImage({ size: 1 << 20, pieces: [], readOnly: false });
  const context = {
    files: { file: made.image },
    disks: {},
    memory: null,
    state: null,
    readOnly: false,
    isRepaired: true,
    options: {},
  };
  const disk = frontDisk(wrap(await driver.open(context)), { readOnly: false });
  await disk.write(Buffer.alloc(8192, 1), 65_536, { durable });
  const report = execFileSync('filefrag', ['-v', made.image.path], { encoding: 'utf8' });
  await disk.close();
  await made.dispose();
  return !report.includes('delalloc');
}

function hasFilefrag(): boolean {
  try {
    execFileSync('filefrag', ['-V'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
