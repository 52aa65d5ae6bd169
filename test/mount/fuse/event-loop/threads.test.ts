/** Descriptors of threads: whether they share their flags, and which server sets the flags during an upgrade. */
import { execFileSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { areApart } from '../../../../mount/fuse/event-loop/threads.js';
import { isNonBlocking, memfdCreate, setNonBlocking, shareFd } from '../../../../system/libc.js';

t.test('separate open file descriptions, and shared ones', (t) => {
  const first = memfdCreate('first');
  const second = memfdCreate('second');
  const shared = shareFd(first);
  const fds = [first, second, shared];
  t.teardown(() => fds.forEach((fd) => void closeSync(fd)));
  t.equal(areApart([first, second]), true);
  t.equal(areApart([first]), true);
  t.equal(areApart([first, shared]), false);
  t.equal(areApart([first, second, shared]), false);
  // as after a server that was killed while it had put off reads
  for (const fd of [first, second]) setNonBlocking(fd, true);
  t.equal(areApart([first, second]), true);
  t.same(fds.map(isNonBlocking), [false, false, false], 'all wait again');
  t.end();
});

t.test('a server that loads while another serves does not change the flags of the other', (t) => {
  const child = fileURLToPath(new URL('./threads-child.js', import.meta.url));
  t.equal(execFileSync(process.execPath, [child], { encoding: 'utf8', timeout: 30_000 }), 'false,true\n');
  t.end();
});
