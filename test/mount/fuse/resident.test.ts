/** Memory that is in RAM before its first use. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { allocateResident } from '../../../mount/fuse/resident.js';
import { addressOf } from '../../../system/libc.js';

const MIB = 1 << 20;

/** of this process, in bytes */
function status(field: 'VmRSS' | 'VmLck'): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(found?.[1]) * 1024;
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
  const [residentBefore, lockedBefore] = [status('VmRSS'), status('VmLck')];
  const { locked } = allocateResident(32 * MIB);
  t.ok(status('VmRSS') - residentBefore > 30 * MIB, 'resident');
  if (locked) t.ok(status('VmLck') - lockedBefore >= 32 * MIB, 'locked');
  else t.comment('RLIMIT_MEMLOCK forbids locking here');
});
