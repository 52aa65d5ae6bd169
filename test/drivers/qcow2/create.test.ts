/** New images: QEMU finds what the options say, no fault, and can write them. */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { NewImage } from '../../../drivers/creating/creator.js';
import { type CreatorFacts, createdFormats, creatorOf } from '../../../drivers/creating/formats.js';
import raw from '../../../drivers/creating/raw.js';
import type { FusetapError } from '../../../drivers/errors.js';
import { checkImage } from '../../../drivers/qcow2/check.js';
import qcow2 from '../../../drivers/qcow2/create.js';
import { qemuImg, qemuIo, qemuSize, whyNoQemu } from '../qemu.js';
import { openFileDisk, qemuCheck } from './qemu-images.js';

const skip = whyNoQemu();
const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];

type Wish = Partial<NewImage> & Pick<NewImage, 'size'>;

const imageOf = ({ size, backing = null, options = {} }: Wish): NewImage => ({ size, backing, options });

async function make(t: Test, wish: Wish, creator: typeof qcow2 | typeof raw = qcow2): Promise<string> {
  const path = join(t.testdir({ 'base.raw': Buffer.alloc(MIB, 'b') }), 'new.img');
  const file = await open(path, 'wx+');
  creator.check(imageOf(wish));
  await creator.write(file.fd, imageOf(wish));
  await file.close();
  return path;
}

interface Info {
  readonly 'cluster-size': number;
  readonly 'backing-filename'?: string;
  readonly 'backing-filename-format'?: string;
  readonly 'format-specific': { readonly data: Readonly<Record<string, unknown>> };
}

function infoOf(path: string): Info {
  return JSON.parse(qemuImg('info', '-f', 'qcow2', '--output=json', path)) as Info;
}

const base = { name: 'base.raw', format: 'raw' };
const WISHES: Readonly<Record<string, Wish>> = {
  'a usual one': { size: 32 * MIB },
  'of one sector': { size: 512 },
  'of small clusters': { size: 3 * GIB, options: { cluster_size: '512' } },
  'of large clusters': { size: 2 ** 50, options: { cluster_size: '2M' } },
  'with refcounts of 1 bit': {
    size: 64 * MIB,
    options: { refcount_bits: '1', cluster_size: '512', preallocation: 'metadata' },
  },
  'with refcounts of 64 bits': {
    size: 300 * MIB,
    options: { refcount_bits: '64', cluster_size: '1k', preallocation: 'metadata' },
  },
  'with all tables': { size: 5 * GIB, options: { preallocation: 'metadata' } },
  'with all space': { size: 20 * MIB, options: { preallocation: 'falloc' } },
  'with extended L2': { size: 64 * MIB, options: { extended_l2: 'on', cluster_size: '16K' } },
  'with extended L2 and all tables': {
    size: 2 * GIB + 512,
    options: { extended_l2: 'on', preallocation: 'metadata' },
  },
  'for zstd': { size: 32 * MIB, options: { compression_type: 'zstd' } },
  'over a base': { size: MIB, backing: base },
  'over a base, of small clusters': { size: MIB, backing: base, options: { cluster_size: '512' } },
  'over a base, with all tables': {
    size: MIB,
    backing: base,
    options: { extended_l2: 'on', preallocation: 'metadata' },
  },
};

for (const [name, wish] of Object.entries(WISHES)) {
  t.test(`an image ${name}`, { skip }, async (t) => {
    const path = await make(t, wish);
    const { size, options = {}, backing } = wish;
    t.match(qemuCheck(path), { status: 0, corruptions: 0, leaks: 0 });
    const image = await openFileDisk(path, { readOnly: true });
    t.match(await checkImage(image), { corruptionCount: 0, leaks: { clusters: 0 }, imageEnd: image.size });
    await image.close();
    t.equal(qemuSize('qcow2', path), size);
    const info = infoOf(path);
    t.match(info['format-specific'].data, {
      compat: '1.1',
      'compression-type': options.compression_type ?? 'zlib',
      'refcount-bits': Number(options.refcount_bits ?? 16),
      'extended-l2': options.extended_l2 === 'on',
      corrupt: false,
    });
    t.equal(info['backing-filename'], backing?.name);
    t.equal(info['backing-filename-format'], backing?.format);
    const { blocks } = await stat(path);
    if (options.preallocation === 'falloc') t.ok(blocks * 512 >= size);
    else t.ok(blocks * 512 < 8 * MIB, `takes ${blocks * 512} bytes`);
    qemuIo('qcow2', path, `read -P ${backing === undefined ? 0 : 98} 0 512`);
    qemuIo('qcow2', path, `write -P 7 ${size - 512} 512`);
    qemuIo('qcow2', path, `read -P 7 ${size - 512} 512`);
    t.match(qemuCheck(path), { status: 0 });
  });
}

t.test('a size is rounded up to whole sectors', { skip }, async (t) => {
  t.equal(qcow2.check(imageOf({ size: 1000 })), 1024);
  t.equal(qemuSize('qcow2', await make(t, { size: 1000 })), 1024);
  t.equal(raw.check(imageOf({ size: 1000 })), 1000);
});

t.test('what cannot be made is refused', async (t) => {
  const cases: [wish: Wish, code: string, message: RegExp, hint?: RegExp][] = [
    [{ size: MIB, options: { size: '1' } }, 'USAGE', /no option 'size'/, /cluster_size/],
    [{ size: MIB, options: { cluster_size: '3K' } }, 'USAGE', /cluster_size: it cannot be 3072/, /512 to 2097152/],
    [{ size: MIB, options: { cluster_size: '4M' } }, 'USAGE', /cluster_size/],
    [{ size: MIB, options: { cluster_size: 'big' } }, 'USAGE', /'big' is not a size/],
    [{ size: MIB, options: { extended_l2: 'on', cluster_size: '4K' } }, 'USAGE', /extended_l2=on/, /16384/],
    [{ size: MIB, options: { refcount_bits: '24' } }, 'USAGE', /refcount_bits/],
    [{ size: MIB, options: { refcount_bits: 'x' } }, 'USAGE', /refcount_bits/],
    [{ size: MIB, options: { compression_type: 'lzma' } }, 'USAGE', /'lzma'/, /zlib or zstd/],
    [{ size: MIB, options: { preallocation: 'full' } }, 'USAGE', /'full'/, /falloc/],
    [{ size: MIB, options: { compat: '0.10' } }, 'UNSUPPORTED', /version 2/, /qemu-img/],
    [{ size: MIB, options: { lazy_refcounts: 'on' } }, 'UNSUPPORTED', /lazy_refcounts/],
    [{ size: MIB, backing: base, options: { preallocation: 'metadata' } }, 'USAGE', /hide the backing/, /extended_l2/],
    [{ size: MIB, backing: { name: 'x'.repeat(1024), format: 'raw' } }, 'USAGE', /1024 bytes, which do not fit/],
    [
      { size: MIB, backing: { name: 'x'.repeat(400), format: 'raw' }, options: { cluster_size: '512' } },
      'USAGE',
      /400 bytes, which do not fit/,
    ],
    [
      { size: 2 ** 40, options: { cluster_size: '512' } },
      'USAGE',
      /too large for clusters of 512/,
      /larger cluster_size/,
    ],
  ];
  for (const [wish, code, message, hint] of cases) {
    t.throws(
      () => qcow2.check(imageOf(wish)),
      { code, message, ...(hint && { hint }) },
      JSON.stringify(wish).slice(0, 90),
    );
  }
  t.throws(() => raw.check(imageOf({ size: KIB, options: { cluster_size: '4K' } })), { code: 'USAGE' });
});

t.test('a raw image is sparse, or has all its space', async (t) => {
  t.match(await stat(await make(t, { size: GIB }, raw)), { size: GIB, blocks: 0 });
  const { size, blocks } = await stat(await make(t, { size: MIB, options: { preallocation: 'falloc' } }, raw));
  t.ok(size === MIB && blocks * 512 >= MIB);
});

t.test('the list of formats knows all options', async (t) => {
  for (const format of createdFormats) {
    const facts = creatorOf(format) as CreatorFacts;
    const { default: creator } = await facts.load();
    const refusalOf = (options: Record<string, string>): string | undefined => {
      try {
        creator.check(imageOf({ size: MIB, options }));
        return undefined;
      } catch (error) {
        return (error as FusetapError).hint;
      }
    };
    for (const [name, values] of Object.entries(facts.options)) {
      for (const value of values) t.equal(refusalOf({ [name]: value }), undefined, `${name}=${value}`);
    }
    t.equal(refusalOf({ no: '1' }), `its options are ${Object.keys(facts.options).join(', ')}`);
  }
  t.equal(creatorOf('constructor'), undefined);
});
