/** Descriptors of threads: whether a flag of one is another's too. */
import { closeSync } from 'node:fs';
import t from 'tap';
import { areApart } from '../../../mount/fuse/threads.js';
import { isNonBlocking, memfdCreate, setNonBlocking, shareFd } from '../../../system/libc.js';

t.test('open files of their own, and shared ones', (t) => {
  const first = memfdCreate('first');
  const second = memfdCreate('second');
  const shared = shareFd(first);
  const fds = [first, second, shared];
  t.teardown(() => fds.forEach((fd) => void closeSync(fd)));
  t.equal(areApart([first, second]), true);
  t.equal(areApart([first]), true);
  t.equal(areApart([first, shared]), false);
  t.equal(areApart([first, second, shared]), false);
  // as a server leaves it that was killed while it had put reads off
  for (const fd of [first, second]) setNonBlocking(fd, true);
  t.equal(areApart([first, second]), true);
  t.same(fds.map(isNonBlocking), [false, false, false], 'all wait again');
  t.end();
});
