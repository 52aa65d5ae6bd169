/** joinDisks: parts of disks as one disk. The drivers that use it run the suite over it. */
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { joinDisks } from '../../drivers/segments/join-disks.js';
import { bufferDisk } from '../conformance/buffer-disk.js';

const counted = (size: number) => {
  let flushes = 0;
  const raw: RawDisk = { ...bufferDisk(Buffer.alloc(size)), flush: async () => void flushes++ };
  return { disk: frontDisk(raw, { readOnly: false }), flushes: () => flushes };
};

t.test('each disk is flushed once, wherever its parts are', async (t) => {
  const [a, b] = [counted(1000), counted(1000)];
  const joined = joinDisks([
    { disk: a.disk, start: 0, size: 10 },
    { disk: b.disk, start: 5, size: 10 },
    { disk: a.disk, start: 10, size: 10 },
    { disk: null, start: 0, size: 10 },
    { disk: a.disk, start: 20, size: 10, readOnly: true },
  ]);
  await joined.flush?.();
  t.same([a.flushes(), b.flushes()], [1, 1]);
});

t.test('a part that is only read refuses what writes, and the others do not', async (t) => {
  const a = counted(1000);
  const part = { disk: a.disk, size: 10 };
  const front = frontDisk(
    joinDisks([
      { ...part, start: 0, readOnly: true },
      { ...part, start: 10 },
    ]),
    { readOnly: false },
  );
  t.equal(front.readOnly, false);
  await t.rejects(front.write(Buffer.alloc(1), 9), { code: 'DENIED' });
  await t.rejects(front.zero(0, 5), { code: 'DENIED' });
  t.equal(await front.write(Buffer.alloc(5), 10), 5);
  t.equal(frontDisk(joinDisks([{ ...part, start: 0, readOnly: true }]), { readOnly: false }).readOnly, true);
});

t.test('a part outside its disk is a mistake of the driver', async (t) => {
  const { disk } = counted(1000);
  for (const [start, size] of [
    [-1, 5],
    [0, 0],
    [0, 1001],
    [1000, 1],
  ] as const) {
    t.throws(() => joinDisks([{ disk, start, size }]), RangeError);
  }
});
