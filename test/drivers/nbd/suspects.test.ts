/** Which requests are sent while it is not known at which one a server ends its connections. */
import t from 'tap';
import { Operation } from '../../../drivers/nbd/operation.js';
import { COMMAND } from '../../../drivers/nbd/protocol.js';
import { LOSSES_OF_SUSPECT, Suspects } from '../../../drivers/nbd/retry/suspects.js';

const GIB = 2 ** 30;
const read = (offset: number, length = 4096): Operation =>
  new Operation({ command: COMMAND.read, offset, length, into: Buffer.alloc(length) });

function suspected(size: number, ...operations: Operation[]): Suspects {
  const suspects = new Suspects(() => ({ size, minimumBytes: 1 }));
  for (let i = 0; i < LOSSES_OF_SUSPECT; i++) suspects.lost(operations, null, true);
  return suspects;
}

t.test('what is read first lies in the disk, whatever its size', async (t) => {
  for (const size of [1, 2, 4 * GIB, 4 * GIB + 1, 6 * GIB, 2 ** 52]) {
    for (const taken of [[0], [0, size - 1]]) {
      const operations = taken.map((offset) => read(offset, 1));
      const suspects = suspected(size, ...operations);
      const probe = suspects.next([...operations], { isIdle: true, answered: 0 });
      if (probe === undefined || operations.includes(probe)) continue;
      t.ok(probe.offset >= 0 && probe.offset < size, `${probe.offset} of ${size}`);
      t.ok(suspects.isProbe(probe));
      t.ok(probe.sinceMs > 0, 'it is not taken for an old one');
    }
  }
});

t.test('a probe is never a suspect', async (t) => {
  const operation = read(8192);
  const suspects = suspected(GIB, operation);
  for (let i = 0; i < 20; i++) {
    const probe = suspects.next([operation], { isIdle: true, answered: 0 }) as Operation;
    t.ok(suspects.isProbe(probe));
    t.equal(probe.offset, 0);
    t.equal(suspects.lost([probe], { answered: 0 }, true), null);
  }
});

t.test('one suspect is in flight alone, and others wait', async (t) => {
  const [one, two, other] = [read(0), read(4096), read(8192)];
  const suspects = suspected(GIB, one, two);
  const waiting = [one, two, other];
  t.equal(suspects.next(waiting, { isIdle: true, answered: 0 }), other, 'first what is no suspect');
  t.equal(suspects.next(waiting, { isIdle: false, answered: 0 }), undefined);
  t.equal(suspects.next(waiting, { isIdle: true, answered: 1 }), one);
  waiting.push(read(16_384));
  t.equal(suspects.next(waiting, { isIdle: false, answered: 1 }), undefined);
  one.resolve();
  t.equal(suspects.next(waiting, { isIdle: true, answered: 2 })?.offset, 16_384);
  t.equal(suspects.next(waiting, { isIdle: true, answered: 3 }), two);
  two.resolve();
  t.equal(suspects.next(waiting, { isIdle: true, answered: 4 }), undefined);
  t.notOk(suspects.isTrying);
});

t.test('a suspect that is only slow does not hold the disk', async (t) => {
  const now = t.capture(performance, 'now', () => nowMs);
  let nowMs = 1_000_000;
  const [slow, other] = [read(0), read(8192)];
  const suspects = suspected(GIB, slow);
  t.ok(suspects.isProbe(suspects.next([slow], { isIdle: true, answered: 0 }) as Operation));
  t.equal(suspects.next([slow], { isIdle: true, answered: 1 }), slow);
  const waiting = [other];
  t.equal(suspects.next(waiting, { isIdle: false, answered: 1 }), undefined);
  nowMs += 6_000;
  t.equal(suspects.next(waiting, { isIdle: false, answered: 1 }), other);
  t.notOk(suspects.isTrying, 'and is no suspect any more');
  now.restore();
});

t.test('others that are slow do not keep yet others from being sent', async (t) => {
  const now = t.capture(performance, 'now', () => nowMs);
  let nowMs = 1_000_000;
  const suspect = read(0);
  const suspects = suspected(GIB, suspect);
  const many = Array.from({ length: 300 }, (_, i) => read(4096 * (i + 1)));
  const waiting = [suspect, ...many];
  let sent = 0;
  while (suspects.next(waiting, { isIdle: false, answered: 0 }) !== undefined) sent += 1;
  t.equal(sent, 256);
  nowMs += 6_000;
  while (suspects.next(waiting, { isIdle: false, answered: 0 }) !== undefined) sent += 1;
  t.equal(sent, 300);
  t.same(waiting, [suspect]);
  // the suspect waits for something else, not in line
  const more = Array.from({ length: 300 }, (_, i) => read(4096 * (i + 1)));
  while (suspects.next(more, { isIdle: false, answered: 0 }) !== undefined);
  t.same(more, []);
  now.restore();
});
