import { closeSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { addClones } from '../../../../mount/fuse/mounting/device.js';
import { tempDir } from '../../../cli/fake-bus.js';

t.test('if the device cannot be cloned, all descriptors share one open file description', async (t) => {
  const path = join(tempDir(t), 'file');
  writeFileSync(path, 'abcdef');
  const first = openSync(path, 'r');
  const fds = [first];
  t.teardown(() => fds.forEach(closeSync));
  addClones(fds, 3, () => {
    throw new Error('EACCES');
  });
  t.equal(new Set(fds).size, 3);
  // they share the position, as only descriptors of one open file description do
  const letters = fds.map((fd) => {
    const byte = Buffer.alloc(1);
    readSync(fd, byte);
    return byte.toString();
  });
  t.same(letters, ['a', 'b', 'c']);
});

t.test('if it can be cloned, each descriptor is a clone of the first', async (t) => {
  const fds = [7];
  addClones(fds, 3, (source) => source + fds.length);
  t.same(fds, [7, 8, 9]);
});
