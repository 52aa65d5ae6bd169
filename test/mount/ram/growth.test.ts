/** Whether a write may fill holes: from credit, because there are none, or because the keeper said so. */
import { closeSync, ftruncateSync, writeSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Window } from '../../../drivers/driver.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { pagesOf, RamGrowth } from '../../../mount/ram/growth.js';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate, memfdCreate } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';

const PAGES = 1024;
const INDEX = 3;

/** A memory whose first pages are data (half of it), and a keeper that gives what is left of `roomPages`. */
function openStage(t: Test, roomPages: number, dataPages: number = PAGES / 2) {
  const fd = memfdCreate('growth');
  const ledgerFd = createLedger();
  t.teardown(() => [fd, ledgerFd].forEach((each) => void closeSync(each)));
  ftruncateSync(fd, PAGES * PAGE_BYTES);
  writeSync(fd, Buffer.alloc(dataPages * PAGE_BYTES, 1));
  const window: Window = {
    ...{ fd, start: 0, size: PAGES * PAGE_BYTES, kind: 'memory' },
    ...{ readOnly: false, durable: false },
  };
  const ledger = new Ledger(ledgerFd);
  const asked: number[] = [];
  let room = roomPages;
  const clock = { nowMs: 1_000 };
  const context = {
    ledger,
    beforeWaiting: () => {},
    ask() {
      const question = ledger.creditQuestion(INDEX);
      if (question === null) return;
      asked.push(question.pages);
      const given = Math.min(room, question.pages);
      room -= given;
      ledger.giveCredit(INDEX, given, question.number, given < question.pages);
    },
  };
  const growth = new RamGrowth(context, () => clock.nowMs);
  const isAllowed = (page: number, pages: number): boolean =>
    growth.isAllowed(window, INDEX, page * PAGE_BYTES, pages * PAGE_BYTES);
  return { fd, isAllowed, ledger, asked, clock };
}

t.test('pages that a range touches', (t) => {
  t.equal(pagesOf(0, 1), 1);
  t.equal(pagesOf(4095, 2), 2);
  t.equal(pagesOf(4096, 8192), 2);
  t.equal(pagesOf(2 ** 40 + 1, 4096), 2);
  t.end();
});

t.test('credit is taken whole or not at all', (t) => {
  const { ledger } = openStage(t, 0);
  ledger.giveCredit(INDEX, 10, 0, false);
  t.equal(ledger.takeCredit(INDEX, 11), false);
  t.equal(ledger.takeCredit(INDEX, 10), true);
  t.equal(ledger.credit(INDEX), 0);
  t.equal(ledger.takeCredit(INDEX, 1), false);
  ledger.giveCredit(INDEX, 5, 0, false);
  ledger.takeBackCredit(INDEX);
  t.equal(ledger.credit(INDEX), 0);
  t.end();
});

t.test('where there is no hole, nobody is waited for', (t) => {
  const { isAllowed, asked, clock } = openStage(t, 0);
  for (const [passedMs, questions] of [
    [0, 1],
    [49, 1],
    [1, 2],
  ] as const) {
    clock.nowMs += passedMs;
    t.equal(isAllowed(0, PAGES / 2), true);
    t.equal(isAllowed(PAGES / 2 - 1, 1), true);
    t.equal(asked.length, questions, 'but more is asked for, once in 50 ms');
  }
  t.equal(isAllowed(PAGES, 1), true, 'beyond the end: nothing will be written');
  t.end();
});

t.test('holes are filled as far as the keeper allows', (t) => {
  const { isAllowed, asked } = openStage(t, 100);
  t.equal(isAllowed(PAGES / 2, 60), true);
  t.equal(isAllowed(PAGES / 2 - 1, 60), false, 'of which 40 are left');
  t.equal(isAllowed(PAGES / 2, 300), false, 'searched in one go');
  t.equal(isAllowed(PAGES - 1, 40), true, 'only what is inside counts');
  t.same(asked, [60, 60, 300, 1]);
  t.end();
});

t.test('of a memory without holes nobody is asked, until it has one', (t) => {
  const { fd, isAllowed, asked } = openStage(t, 3, PAGES);
  for (const pages of [1, 7, 8, 128, PAGES]) t.equal(isAllowed(PAGES - pages, pages), true, `${pages} pages`);
  t.same(asked, []);
  t.equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100 * PAGE_BYTES, PAGE_BYTES), 0);
  t.equal(isAllowed(99, 3), true, 'of which one is a hole');
  t.equal(isAllowed(100, 8), false, 'more than there is room for');
  t.equal(isAllowed(101, 8), true, 'beside it');
  t.same(asked.slice(0, 2), [3, 8]);
  t.end();
});
