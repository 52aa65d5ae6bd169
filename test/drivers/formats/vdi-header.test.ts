import fc from 'fast-check';
import t from 'tap';
import type { RawDisk } from '../../../drivers/driver.js';
import vdi from '../../../drivers/vdi/index.js';
import { type VdiFields, vdiHead } from '../images/vdi.js';
import { contextOver, mutated, randomImage, refusesOrServes, seed } from './image-bytes.js';

const BLOCK = 4096;
const SIZE = 3 * BLOCK - 100;

function image(fields: Partial<VdiFields> = {}): Buffer {
  const { head } = vdiHead({ size: SIZE, blockBytes: BLOCK, ...fields });
  return Buffer.concat([head, Buffer.alloc(SIZE, 5)]);
}

/** Opens an image, and takes over from a server before this one. */
async function opened(bytes: Buffer): Promise<RawDisk> {
  const disk = await vdi.open({ ...contextOver(bytes), readOnly: true });
  await disk.activate?.();
  return disk;
}

t.test('a static image is one run', async (t) => {
  const runOf = async (bytes: Buffer) =>
    ((await opened(bytes)).segments ?? []).map(({ start, size }) => ({ start, size }));
  t.same(await runOf(image()), [{ start: 4096, size: SIZE }]);
  t.same(await runOf(image({ blocks: 9, map: [0, 1, 2, 0xffffffff] })), [{ start: 4096, size: SIZE }]);
  const mapped = Array.from({ length: 10_000 }, (_, i) => i);
  const { head, dataStart } = vdiHead({ size: 10_000 * BLOCK, blockBytes: BLOCK, map: mapped });
  const large = { start: dataStart, size: 10_000 * BLOCK };
  t.same(await runOf(Buffer.concat([head, Buffer.alloc(large.size)])), [large], 'a map of several reads');
});

t.test('blocks may be anywhere, and may be absent', async (t) => {
  const NONE = [0xffffffff, 0xfffffffe];
  for (const type of [1, 2]) {
    for (const map of [[1, 0, 2], [2, NONE[0], 0], [NONE[1], NONE[0], 1], NONE]) {
      const entries = [...map, NONE[0]].slice(0, 3) as number[];
      const bytes = Buffer.concat([image({ type, map: entries }), Buffer.alloc(100)]);
      for (let n = 0; n < 3; n++) bytes.fill(n + 1, 4096 + n * BLOCK, 4096 + (n + 1) * BLOCK);
      const disk = await opened(bytes);
      const seen = Buffer.alloc(SIZE);
      await disk.read(seen, 0);
      const expected = entries.map((n) => (n >= 0xfffffffe ? 0 : n + 1));
      t.same([seen[0], seen[BLOCK], seen[2 * BLOCK]], expected, `${type}: ${entries}`);
      t.same([seen[BLOCK - 1], seen[2 * BLOCK - 1], seen[SIZE - 1]], expected);
    }
  }
});

t.test('two blocks at one place are read, and never written', async (t) => {
  const bytes = image({ type: 1, map: [0, 1, 1] });
  const disk = await opened(bytes);
  await disk.read(Buffer.alloc(SIZE), 0);
  const writable = await vdi.open({ ...contextOver(bytes), readOnly: false });
  await t.rejects(async () => writable.activate?.(), { code: 'FAILED', message: /two of its blocks are at place 1/ });
});

t.test('each fault has its line', async (t) => {
  const refuse = (fields: Partial<VdiFields>, code: string, message: RegExp) =>
    t.rejects(opened(image(fields)), { code, message }, String(message));
  await refuse({ type: 3 }, 'UNSUPPORTED', /type 3 \(undo\)/);
  await refuse({ type: 4 }, 'UNSUPPORTED', /type 4 \(differencing\)/);
  await refuse({ type: 0 }, 'FAILED', /type is 0/);
  await refuse({ version: 1 }, 'UNSUPPORTED', /version 0x1,/);
  await refuse({ parent: 5 }, 'UNSUPPORTED', /parent/);
  await refuse({ sectorBytes: 4096 }, 'UNSUPPORTED', /sectors of 4096/);
  await refuse({ extraBytes: 16 }, 'UNSUPPORTED', /16 extra bytes/);
  await refuse({ headerBytes: 100 }, 'FAILED', /header of 100/);
  await refuse({ headerBytes: 0xffffffff }, 'FAILED', /header of 4294967295/);
  await refuse({ size: 0 }, 'FAILED', /size is 0/);
  await refuse({ size: 2n ** 63n, map: [0, 1, 2] }, 'FAILED', /too large/);
  await refuse({ blockBytes: 1 }, 'FAILED', /blocks have 1 bytes/);
  await refuse({ blockBytes: 5000 }, 'FAILED', /blocks have 5000/);
  await refuse({ blocks: 2 }, 'FAILED', /2 blocks are less/);
  await refuse({ blocks: 0xffffffff, map: [0, 1, 2] }, 'FAILED', /reaches into its data/);
  await refuse({ dataStart: 516 }, 'FAILED', /reaches into its data/);
  await refuse({ dataStart: 0xffffffff, map: [0, 1, 2] }, 'FAILED', /the image has/);
  await refuse({ size: SIZE + BLOCK }, 'FAILED', /the image has/);
  await t.rejects(opened(Buffer.alloc(600)), { code: 'USAGE', message: 'it is not a VDI image' });
  await t.rejects(opened(image().subarray(0, 400)), { code: 'USAGE' });
});

t.test(`hostile images (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const check = async (bytes: Buffer): Promise<void> => {
    if (await refusesOrServes(() => vdi.open(contextOver(bytes)), new Map([[7, bytes.length]]))) served += 1;
  };
  const places = [72, 76, 340, 344, 360, 368, 372, 376, 380, 384, 512, 516];
  await fc.assert(fc.asyncProperty(mutated(image(), places), check), { seed, numRuns: 1500 });
  await fc.assert(fc.asyncProperty(randomImage(image().subarray(0, 512)), check), { seed, numRuns: 300 });
  t.ok(served > 20, `${served} were served`);
});
