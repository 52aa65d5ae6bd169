/** Memory that is in RAM before its first use. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import t from 'tap';
import { addressOf } from '../../system/libc.js';
import { allocateResident } from '../../system/resident.js';

const MIB = 1 << 20;

/** bytes of this process's memory that are locked */
function lockedBytes(): number {
  return Number(/^VmLck:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;
}

/**
 * How many of the pages at `address` are in memory, by /proc/self/pagemap: 8 bytes a page, the top bit says present.
 * Not by VmRSS, which a collection at the wrong moment lowers.
 */
function presentPages(address: number, length: number): number {
  const entries = Buffer.alloc((length / 4096) * 8);
  const pagemap = openSync('/proc/self/pagemap', 'r');
  readSync(pagemap, entries, 0, entries.length, (address / 4096) * 8);
  closeSync(pagemap);
  let present = 0;
  for (let at = 7; at < entries.length; at += 8) if ((entries[at] ?? 0) & 0x80) present++;
  return present;
}

t.test('starts at a page, has the length asked for, and is zeros', async (t) => {
  for (const length of [1, 4096, 5000, 12_288]) {
    const { address, bytes } = allocateResident(length);
    t.equal(address % 4096, 0);
    t.equal(addressOf(bytes), address);
    t.equal(bytes.length, length);
    t.ok(bytes.every((byte) => byte === 0));
  }
});

t.test('is in memory at once, and locked', async (t) => {
  const lockedBefore = lockedBytes();
  const { address, locked } = allocateResident(32 * MIB);
  t.equal(presentPages(address, 32 * MIB), (32 * MIB) / 4096, 'every page is resident');
  const untouched = Buffer.allocUnsafeSlow(33 * MIB);
  const firstPage = Math.ceil(addressOf(untouched) / 4096) * 4096;
  t.ok(presentPages(firstPage, 32 * MIB) < (32 * MIB) / 4096, 'memory that nobody touched is not');
  if (locked) t.ok(lockedBytes() - lockedBefore >= 32 * MIB, 'locked');
  else t.comment('RLIMIT_MEMLOCK forbids locking here');
});
