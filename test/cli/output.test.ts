import fc from 'fast-check';
import t from 'tap';
import { exitStatus, humanSize, jsonError } from '../../cli/output.js';
import { type ErrorCode, EXIT_CODES, FusetapError } from '../../drivers/errors.js';

t.test('sizes are short for people', async (t) => {
  const sizes: [number, string][] = [
    [0, '0'],
    [512, '512'],
    [1023, '1023'],
    [1024, '1K'],
    [1536, '1.5K'],
    [1024 ** 2 - 1, '1M'],
    [1024 ** 2, '1M'],
    [10 * 1024 ** 3, '10G'],
    [2.5 * 1024 ** 4, '2.5T'],
    [Number.MAX_SAFE_INTEGER, '8P'],
  ];
  for (const [bytes, text] of sizes) t.equal(humanSize(bytes), text, String(bytes));
});

t.test('a size for people is within a twentieth of the truth', async (t) => {
  const units = ['', 'K', 'M', 'G', 'T', 'P'];
  fc.assert(
    fc.property(fc.maxSafeNat(), (bytes) => {
      const [, number = '', unit = ''] = /^([0-9.]+)([KMGTP]?)$/.exec(humanSize(bytes)) ?? [];
      const shown = Number(number) * 1024 ** units.indexOf(unit);
      t.ok(Math.abs(shown - bytes) <= bytes / 20, `${bytes}: ${number}${unit}`);
      t.ok(Number(number) < 1024);
    }),
  );
});

t.test('each code has its exit status, and one of a newer bus is a failure', async (t) => {
  for (const [code, exit] of Object.entries(EXIT_CODES)) t.equal(exitStatus(code as ErrorCode), exit);
  t.equal(exitStatus('FROM_THE_FUTURE' as ErrorCode), 1);
});

t.test('an error in JSON has all its keys', async (t) => {
  t.same(jsonError(new FusetapError('BUSY', 'held', { holders: [{ pid: 1 }] })), {
    ...{ code: 'BUSY', message: 'held', hint: null, holders: [{ pid: 1 }] },
  });
  t.match(jsonError(new TypeError('a mistake')), { code: 'FAILED', message: /a mistake/, holders: [] });
});
