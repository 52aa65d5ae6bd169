/** Space for new blocks: what is given back is used again, as zeros, and an image does not grow without need. */
import t from 'tap';
import { EndSpace } from '../../drivers/blocks/end-space.js';
import type { Disk } from '../../drivers/disk.js';
import { Barrier } from '../../drivers/lookup/barrier.js';

const STRIDE = 1 << 20;

function imageOf(): { image: Disk; calls: string[]; size(): number } {
  const calls: string[] = [];
  let size = 4096;
  const image = {
    get size() {
      return size;
    },
    growth: {
      measure: async () => size,
      grow: async (wanted: number) => {
        size = Math.max(size, wanted);
      },
    },
    zero: async (offset: number, length: number) => void calls.push(`zero ${offset}+${length}`),
    flush: async () => void calls.push('flush'),
  };
  return { image: image as unknown as Disk, calls, size: () => size };
}

t.test('space that is given back is made zeros, and taken again', async (t) => {
  const { image, calls, size } = imageOf();
  const space = new EndSpace({ image, barrier: new Barrier(() => image.flush()), strideBytes: STRIDE });
  space.start(4096);
  const first = await space.take();
  t.equal(first, 4096);
  const end = size();
  calls.length = 0;
  for (let i = 0; i < 1000; i++) {
    space.giveBack(await space.take());
  }
  t.equal(size(), end, 'writes that fail do not make the image longer');
  t.ok(calls.includes(`zero ${4096 + STRIDE}+${STRIDE}`));
});

t.test('an announcement that failed is repeated', async (t) => {
  const { image } = imageOf();
  let fails = true;
  const announced: [number, boolean][] = [];
  const space = new EndSpace({
    ...{ image, barrier: new Barrier(() => image.flush()), strideBytes: STRIDE, trailerBytes: 512 },
    announce: async (end, isLonger) => {
      announced.push([end, isLonger]);
      if (fails) throw new Error('the disk is full');
    },
  });
  space.start(4096);
  await t.rejects(space.take(), { message: 'the disk is full' });
  fails = false;
  await space.take();
  t.same(announced[0], announced[1]);
  t.equal(announced[1]?.[1], true, 'the trailer is written');
});
