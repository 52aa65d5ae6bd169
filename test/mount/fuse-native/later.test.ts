/** A call that waits for disks always answers. */
import t from 'tap';
import { later } from '../../../mount/fuse-native/operations.js';

t.test('an error is the answer', async (t) => {
  const failing = later(async () => {
    throw Object.assign(new Error('no more files'), { code: 'EMFILE' });
  });
  const status = await new Promise<number>((resolve) => failing('/by-label/x', resolve));
  t.ok(status < 0, `${status}`);
});
