/** The ram limit on the event loop: a snapshot takes credit for the memory that it fills, and threads take none for it. */
import { closeSync, fstatSync } from 'node:fs';
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import snapshot from '../../../drivers/snapshot/index.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { fillGuard } from '../../../mount/ram/bounded-disk.js';
import { memfdCreate } from '../../../system/libc.js';
import { patternBytes } from '../../conformance/pattern.js';
import { contextOver, inFile, prepareOver } from '../../drivers/snapshot/bases.js';

const PAGE = 4096;
const INDEX = 3;
const SIZE = 1024 * PAGE;
const full = { code: 'NO_SPACE', errno: constants.errno.ENOSPC };

/** A keeper that gives no more than `roomPages`. */
function roomOf(t: Test, roomPages: number) {
  const ledgerFd = createLedger();
  t.teardown(() => closeSync(ledgerFd));
  const ledger = new Ledger(ledgerFd);
  let room = roomPages;
  const asked: number[] = [];
  const ask = (): void => {
    const question = ledger.creditQuestion(INDEX);
    if (question === null) return;
    asked.push(question.pages);
    const given = Math.min(room, question.pages);
    room -= given;
    ledger.giveCredit(INDEX, given, question.number, given < question.pages);
  };
  return { room: { ledger, ledgerIndex: INDEX, ask }, asked };
}

t.test('a snapshot asks before it fills memory, and only then', async (t) => {
  const base = await inFile({ size: SIZE, pieces: [{ offset: 0, length: SIZE, seed: 1 }] });
  const fd = memfdCreate('bounded');
  t.teardown(async () => {
    closeSync(fd);
    await base.dispose();
  });
  const state = await prepareOver(base.disk, fd);
  const { room, asked } = roomOf(t, 12);
  const mayFill = fillGuard(fd, fstatSync(fd).size, room);
  const raw = await snapshot.open({ ...contextOver(base.disk, fd, state), mayFill });
  const disk = frontDisk(raw, { readOnly: false });
  await disk.write(patternBytes(0, 10 * PAGE, 2), 0);
  t.same(asked, [10, 1], 'the data, and a page of states');
  await disk.write(patternBytes(0, 10 * PAGE, 3), 0);
  t.same(asked, [10, 1], 'what is in memory already takes none');
  await t.rejects(disk.write(patternBytes(0, 5 * PAGE, 4), 8 * PAGE), {
    ...full,
    operation: 'write',
    offset: 8 * PAGE,
  });
  const seen = Buffer.alloc(5 * PAGE);
  await disk.read(seen, 8 * PAGE);
  t.ok(seen.subarray(0, 2 * PAGE).equals(patternBytes(0, 10 * PAGE, 3).subarray(8 * PAGE)), 'it wrote nothing');
  t.ok(seen.subarray(2 * PAGE).equals(patternBytes(10 * PAGE, 3 * PAGE, 1)));
  await disk.write(patternBytes(0, 1, 5), 500 * PAGE);
  await t.rejects(disk.write(patternBytes(0, 1, 5), 600 * PAGE), full);
  t.equal(fstatSync(fd).blocks * 512, 12 * PAGE, 'all that was given, and no more');
  await disk.zero(0, 10 * PAGE, { punch: true });
  t.equal(fstatSync(fd).blocks * 512, 2 * PAGE, 'zeros free memory');
  await t.rejects(disk.write(patternBytes(0, 1, 5), 0), full, 'and it must be asked for again');
});

t.test('a range beyond the end of the memory takes nothing', async (t) => {
  const fd = memfdCreate('bounded');
  t.teardown(() => closeSync(fd));
  const { room, asked } = roomOf(t, 0);
  await fillGuard(fd, 0, room)(0, 4096);
  t.same(asked, []);
});
