/** What a keeper answers to a thread that needs memory, where others have been given what they do not use. */
import { closeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { RamCredit } from '../../../mount/ram/credit.js';
import type { RamImage } from '../../../mount/ram/ram-images.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { eventually } from '../../e2e/command.js';

const INDEX = 3;
const NODE_ID = 7;

interface Others {
  /** of the limit, in bytes */
  room: number;
  /** given to other keepers, and not used */
  granted: number;
}

/** A keeper with one vbd. @param looked called after each look at what there is */
function openStage(t: Test, others: Others, looked: () => void) {
  const ledgerFd = createLedger();
  t.teardown(() => closeSync(ledgerFd));
  const ledger = new Ledger(ledgerFd);
  const memory: RamImage = {
    id: 'a',
    fd: -1,
    state: null,
    sizeBytes: 1 << 30,
    image: '/a.img',
    isOwn: false,
    users: 1,
    bases: 0,
    isWritten: false,
  };
  const memories = {
    async grant(_: RamImage, _unspentBytes: number, wantedBytes: number) {
      const given = Math.min(wantedBytes, others.room);
      others.room -= given;
      looked();
      return given;
    },
    areOthersGranted: () => others.granted > 0,
  };
  const credit = new RamCredit(ledger, memories, () => [{ nodeId: NODE_ID, ledgerIndex: INDEX, memory }]);
  /** asks for pages as a thread does. @returns whether it got them */
  const ask = async (pages: number): Promise<boolean> => {
    const question = ledger.askCredit(INDEX, pages);
    credit.wanted(NODE_ID);
    await eventually('an answer', 20_000, async () => ledger.isCreditAnswered(INDEX, question));
    return ledger.takeCredit(INDEX, pages);
  };
  return { ledger, ask };
}

t.test('what others let go at any moment of a look is given, not refused', async (t) => {
  // at the first look, at the second, …
  for (const moment of [1, 2, 3]) {
    const others = { room: 0, granted: 8 * PAGE_BYTES };
    let looks = 0;
    const { ask } = openStage(t, others, () => {
      looks += 1;
      if (looks !== moment) return;
      // just after the look
      others.room += others.granted;
      others.granted = 0;
    });
    t.equal(await ask(8), true, `after look ${moment}`);
  }
});

t.test('where nobody has anything to give back, it is refused at once', async (t) => {
  const { ledger, ask } = openStage(t, { room: 4 * PAGE_BYTES, granted: 0 }, () => {});
  const begun = performance.now();
  t.equal(await ask(8), false);
  t.ok(performance.now() - begun < 3_000);
  t.equal(ledger.isCreditExhausted(INDEX), true);
  t.equal(ledger.takeCredit(INDEX, 4), true, 'what there is was given');
});

t.test('and after a while where others keep what they have', async (t) => {
  const { ask } = openStage(t, { room: 0, granted: PAGE_BYTES }, () => {});
  t.equal(await ask(1), false);
});
