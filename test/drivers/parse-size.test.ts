import fc from 'fast-check';
import t from 'tap';
import { parseSize } from '../../drivers/parse-size.js';

t.test('sizes', async (t) => {
  const sizes: Record<string, number> = {
    '0': 0,
    '4096': 4096,
    '1K': 1024,
    '3M': 3 << 20,
    '2G': 2 ** 31,
    '5T': 5 * 2 ** 40,
    '1KB': 1000,
    '3MB': 3e6,
    '2GB': 2e9,
    '5TB': 5e12,
    '9007199254740991': Number.MAX_SAFE_INTEGER,
  };
  for (const [text, bytes] of Object.entries(sizes)) t.equal(parseSize(text, 'size'), bytes, text);
});

t.test('no sizes', async (t) => {
  for (const text of ['', ' 1', '1 K', '-1', '1.5G', '1k', '1KiB', '0x10', '1e3', '9007199254740992', '9999T', 'K']) {
    t.throws(() => parseSize(text, 'offset'), { code: 'USAGE', message: /^offset: .* is not a size$/ }, text);
  }
});

t.test('a number is itself', async () => {
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(String(bytes), 'size') === bytes));
});
