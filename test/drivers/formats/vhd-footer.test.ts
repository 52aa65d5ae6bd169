import fc from 'fast-check';
import t from 'tap';
import { readFooter } from '../../../drivers/vhd/footer.js';
import vhd from '../../../drivers/vhd/index.js';
import { type FooterFields, vhdFooter } from '../images/vhd.js';
import { contextOver, diskOf, mutated, randomImage, refusesOrServes, seed } from './image-bytes.js';

const DATA = 4096;

interface Expected {
  readonly code: string;
  readonly message: string | RegExp;
  readonly hint: RegExp;
}

function image(fields: Partial<FooterFields> = {}): Buffer {
  return Buffer.concat([Buffer.alloc(DATA, 3), vhdFooter({ size: DATA, ...fields })]);
}

t.test('a footer of 512 or 511 bytes', async (t) => {
  for (const bytes of [512, 511]) {
    t.match(await readFooter(diskOf(image({ bytes }))), { type: 'fixed', size: DATA, isHidden: false, isAtEnd: true });
    t.match(await readFooter(diskOf(image({ bytes, size: 77 }))), { size: 77 }, 'any size');
  }
});

t.test('a size that does not fit is refused', async (t) => {
  for (const size of [0, DATA + 1, Number.MAX_SAFE_INTEGER, 2n ** 53n, 2n ** 64n - 1n]) {
    await t.rejects(readFooter(diskOf(image({ size }))), { code: 'FAILED' }, String(size));
  }
});

t.test('each fault has its line', async (t) => {
  const refuse = (bytes: Buffer, error: Partial<Expected>) =>
    t.rejects(readFooter(diskOf(bytes)), { ...error, name: 'FusetapError' });
  await refuse(image({ checksum: 1 }), { code: 'FAILED', message: /checksum/ });
  await refuse(image({ version: 0x20000 }), { code: 'UNSUPPORTED', message: /version 0x20000/ });
  await refuse(image({ type: 0 }), { code: 'FAILED', message: /its type is 0/ });
  await refuse(image({ cookie: 'v_poison' }), { code: 'FAILED', hint: /vhd-util revert/ });
  await refuse(image().subarray(0, DATA), { code: 'USAGE', message: 'it is not a VHD image' });
  await refuse(Buffer.from('conectix'), { code: 'USAGE' });
  await refuse(Buffer.alloc(1), { code: 'USAGE' });
  await refuse(Buffer.concat([vhdFooter({ size: 1 }), Buffer.alloc(512)]), {
    code: 'FAILED',
    message: /does not end with a footer/,
  });
});

t.test(`hostile images (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const check = async (bytes: Buffer): Promise<void> => {
    if (await refusesOrServes(() => vhd.open(contextOver(bytes)), new Map([[7, bytes.length]]))) served += 1;
  };
  const valid = image({ bytes: 512 });
  // with a right checksum after the change of another field, else few get past it
  const fields = fc.record({
    size: fc.oneof(fc.nat({ max: 2 * DATA }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    type: fc.constantFrom(2, 2, 2, 0, 3, 4, 5),
    bytes: fc.constantFrom(511, 512),
  });
  await fc.assert(fc.asyncProperty(mutated(valid, [DATA + 48, DATA + 60, DATA + 64]), check), { seed, numRuns: 500 });
  await fc.assert(
    fc.asyncProperty(fields, (some) => check(image(some))),
    { seed, numRuns: 500 },
  );
  await fc.assert(fc.asyncProperty(randomImage(vhdFooter({ size: 9 })), check), { seed, numRuns: 300 });
  t.ok(served > 20, `${served} were served`);
});
