/**
 * Slots and vdevs against libxl's figures, exhaustively where the ranges allow it.
 */
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import { findSlot, firstFreeXvd, parseSlot, slotOfNumber, slotOfVdev, vdevOfSlot } from '../../../mount/slots/slots.js';
import { FIGURES, REFUSED, WORDS } from './slots.golden.js';

const LETTERS = 'abcdefghijklmnopqrstuvwxyz';

/** Names of disks counted up as an odometer would, so not by the code's arithmetic: a … z, aa, ab … */
function* diskLetters(): Generator<string> {
  let names = [''];
  for (;;) {
    names = names.flatMap((name) => [...LETTERS].map((letter) => name + letter));
    yield* names;
  }
}

function take(count: number): string[] {
  const letters = diskLetters();
  return Array.from({ length: count }, () => letters.next().value as string);
}

/** Every difference between expected and actual, at most ten: a subtest for each slot would drown the report. */
function compareAll(t: Test, pairs: Iterable<readonly [string, number]>): void {
  const wrong: unknown[] = [];
  const slots = new Set<number>();
  let count = 0;
  for (const [vdev, slot] of pairs) {
    count++;
    slots.add(slot);
    if (findSlot(vdev) !== slot || vdevOfSlot(slot) !== vdev)
      wrong.push([vdev, slot, findSlot(vdev), vdevOfSlot(slot)]);
    if (wrong.length >= 10) break;
  }
  t.same(wrong, []);
  t.equal(slots.size, count, 'no slot has two names');
}

const nameOf = (kind: string, letters: string, partition: number): string =>
  `${kind}${letters}${partition === 0 ? '' : partition}`;

t.test('figures of the reference, both ways', (t) => {
  for (const [vdev, slot] of FIGURES) {
    t.equal(slotOfVdev(vdev), slot, `${vdev} is ${slot}`);
    t.equal(vdevOfSlot(slot), vdev, `${slot} is ${vdev}`);
    t.same(parseSlot(vdev), { slot, vdev }, `${vdev} keeps its name`);
  }
  t.end();
});

t.test('other words for a slot', (t) => {
  for (const [word, slot, vdev] of WORDS) t.same(parseSlot(word), { slot, vdev }, word);
  t.end();
});

t.test('refused words', (t) => {
  for (const word of REFUSED) {
    t.equal(findSlot(word), null, `${JSON.stringify(word)} is no place on a bus`);
    t.throws(() => slotOfVdev(word), { code: 'USAGE', hint: /xvda/ });
    t.throws(() => parseSlot(word), { code: 'USAGE' });
  }
  t.end();
});

t.test('an error quotes what it was given, on one line and cut', (t) => {
  t.throws(() => slotOfVdev('xvdA'), { message: "'xvdA' is not a vdev" });
  t.throws(() => slotOfVdev('a\nb\x1b[31m\u202e'), { message: "'a\\nb\\x1b[31m\\u{202e}' is not a vdev" });
  t.throws(() => slotOfVdev('x'.repeat(1e6)), { message: `'${'x'.repeat(80)}…' is not a vdev` });
  t.end();
});

t.test('every xvd name with major 202', (t) => {
  const pairs = take(16).flatMap((letters, disk) =>
    Array.from({ length: 16 }, (_, part) => [nameOf('xvd', letters, part), 51712 + disk * 16 + part] as const),
  );
  compareAll(t, pairs);
  t.end();
});

t.test('every partition of the extended range on 800 disks', (t) => {
  const pairs = take(800).flatMap((letters, disk) =>
    Array.from({ length: 256 }, (_, part) => [nameOf('xvd', letters, part), 2 ** 28 + disk * 256 + part] as const),
  );
  compareAll(
    t,
    pairs.filter(([, slot]) => !(slot - 2 ** 28 < 16 * 256 && slot % 256 < 16)),
  );
  t.end();
});

t.test('every disk of the extended range', (t) => {
  function* pairs(): Generator<readonly [string, number]> {
    let disk = 0;
    for (const letters of diskLetters()) {
      if (disk === 2 ** 20) return;
      if (disk >= 16) yield [`xvd${letters}`, 2 ** 28 + disk * 256];
      disk++;
    }
  }
  compareAll(t, pairs());
  t.end();
});

t.test('every hd and sd name', (t) => {
  const bases = { a: 768, b: 832, c: 5632, d: 5696 };
  const hd = Object.entries(bases).flatMap(([letter, base]) =>
    Array.from({ length: 64 }, (_, part) => [nameOf('hd', letter, part), base + part] as const),
  );
  const sd = take(16).flatMap((letter, disk) =>
    Array.from({ length: 16 }, (_, part) => [nameOf('sd', letter, part), 2048 + disk * 16 + part] as const),
  );
  compareAll(t, [...hd, ...sd]);
  t.end();
});

t.test('names beyond the ranges', (t) => {
  const all = [...take(800)];
  const accepted = [
    ...all.slice(4).flatMap((letters) => [`hd${letters}`, `hd${letters}1`]),
    ...all.slice(16).flatMap((letters) => [`sd${letters}`, `sd${letters}1`]),
    ...[...'abcd'].flatMap((letter) => Array.from({ length: 2000 }, (_, i) => `hd${letter}${64 + i}`)),
    ...take(16).flatMap((letter) => Array.from({ length: 2000 }, (_, i) => `sd${letter}${16 + i}`)),
    ...all.flatMap((letters) => [256, 257, 999, 1000, 65536].map((part) => `xvd${letters}${part}`)),
  ].filter((word) => findSlot(word) !== null);
  t.same(accepted, []);
  t.end();
});

t.test('every slot below 2^17 has a name that is its own', (t) => {
  const wrong: number[] = [];
  for (let slot = 0; slot < 2 ** 17; slot++) {
    const { slot: back, vdev } = parseSlot(vdevOfSlot(slot));
    if (back !== slot || vdev !== vdevOfSlot(slot)) wrong.push(slot);
  }
  t.same(wrong, []);
  t.end();
});

t.test('any slot has a name that is its own and that a file can have', (t) => {
  fc.assert(
    fc.property(fc.nat(2 ** 31 - 1), (slot) => {
      const vdev = vdevOfSlot(slot);
      return slotOfVdev(vdev) === slot && /^(?:(?:xvd|hd|sd)[a-z]+)?[0-9]*$/.test(vdev);
    }),
    { numRuns: 20_000 },
  );
  t.end();
});

t.test('numbers are read as strtoul reads them', (t) => {
  fc.assert(
    fc.property(fc.nat(2 ** 31 - 1), (slot) => {
      const words = [
        slot.toString(),
        `0x${slot.toString(16)}`,
        `0X${slot.toString(16).toUpperCase()}`,
        `0${slot.toString(8)}`,
      ];
      return words.every((word) => slotOfNumber(word) === slot && slotOfVdev(word) === slot);
    }),
  );
  t.equal(slotOfNumber('xvda'), null);
  t.end();
});

t.test('dNpM is decimal and means what xvd means', (t) => {
  fc.assert(
    fc.property(fc.nat(2 ** 20 - 1), fc.nat(255), fc.nat(3), (disk, part, zeros) => {
      const slot = slotOfVdev(`d${'0'.repeat(zeros)}${disk}p${part}`);
      const expected = disk <= 15 && part <= 15 ? 51712 + disk * 16 + part : 2 ** 28 + disk * 256 + part;
      return slot === expected && vdevOfSlot(slot).startsWith('xvd');
    }),
  );
  t.end();
});

t.test('any word is a slot or a USAGE error', (t) => {
  const word = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.string({ unit: fc.constantFrom(...'xvdhsdp0123456789/-+.aAzZ \n') }),
    fc
      .tuple(fc.constantFrom('xvd', 'hd', 'sd', 'd', '/dev/', '0x', '0', ''), fc.string())
      .map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(word, (word) => {
      try {
        const { slot, vdev } = parseSlot(word);
        return slotOfVdev(vdev) === slot && !/[/\p{C}]/u.test(vdev);
      } catch (error) {
        return error instanceof FusetapError && error.code === 'USAGE' && error.hint !== undefined;
      }
    }),
    { numRuns: 20_000 },
  );
  t.end();
});

t.test('vdevOfSlot refuses what is no slot as a mistake of its caller', (t) => {
  for (const slot of [-1, 2 ** 31, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
    t.throws(() => vdevOfSlot(slot), RangeError);
  t.end();
});

t.test('firstFreeXvd', (t) => {
  const slots = (...vdevs: string[]): number[] => vdevs.map(slotOfVdev);
  t.equal(firstFreeXvd([]), 'xvda');
  t.equal(firstFreeXvd(slots('xvda')), 'xvdb');
  t.equal(firstFreeXvd(slots('xvdb')), 'xvda');
  t.equal(firstFreeXvd(slots('xvdb', 'xvda', 'xvdd')), 'xvdc');
  t.equal(firstFreeXvd(slots('hda', 'sda', '0', '536870912')), 'xvda', 'other kinds take no xvd disk');
  t.equal(firstFreeXvd(slots('xvda1', 'xvdb16', 'xvdc')), 'xvdd', 'a disk with a partition taken is passed over');
  t.equal(firstFreeXvd(new Set(take(16).map((letters) => slotOfVdev(`xvd${letters}`)))), 'xvdq');
  t.equal(firstFreeXvd(take(26).map((letters) => slotOfVdev(`xvd${letters}`))), 'xvdaa');
  t.throws(() => firstFreeXvd(Array.from({ length: 2 ** 20 }, (_, disk) => 2 ** 28 + disk * 256)), { code: 'BUSY' });
  t.end();
});
