import fc from 'fast-check';
import t from 'tap';
import { parseSize, sizeForBus } from '../../drivers/parse-size.js';

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
    '512B': 512,
    '010': 10,
    '0x100000': 1 << 20,
    '10m': 10 << 20,
    '10Mi': 10 << 20,
    '10MiB': 10 << 20,
    '10mib': 10 << 20,
    '10mb': 10e6,
    '1P': 2 ** 50,
    '1.5G': 1.5 * 2 ** 30,
    '0.5KB': 500,
    '1.1K': 1126,
  };
  for (const [text, bytes] of Object.entries(sizes)) t.equal(parseSize(text, 'size'), bytes, text);
});

t.test('no sizes', async (t) => {
  for (const text of [
    '',
    ' 1',
    '1 K',
    '-1',
    '1.5',
    '1.G',
    '.5G',
    '1KiBB',
    '1iB',
    '0x',
    '1e3',
    '9007199254740992',
    '9999T',
    '1E',
    'K',
  ]) {
    t.throws(() => parseSize(text, 'offset'), { code: 'USAGE', message: /^offset: .* is not a size$/ }, text);
  }
});

t.test('a number is itself', async () => {
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(String(bytes), 'size') === bytes));
});

t.test('a bus of an older version is sent a size that it can read', async (t) => {
  for (const text of ['512', '1K', '20MB']) t.equal(sizeForBus(text, 'offset'), text);
  t.equal(sizeForBus('10MiB', 'offset'), String(10 << 20));
  t.equal(sizeForBus('1m', 'offset'), String(1 << 20));
  t.throws(() => sizeForBus('far', 'offset'), { code: 'USAGE', message: "offset: 'far' is not a size" });
});
