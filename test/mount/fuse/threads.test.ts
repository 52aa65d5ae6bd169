/** Descriptors of threads: whether a flag of one is another's too, and whose the flags are during an upgrade. */
import { execFileSync } from 'node:child_process';
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

const BESIDE = `
const at = (path) => import(new URL(path, process.argv[1]).href);
const { createLedger } = await at('../../../mount/ledger.js');
const { createStats } = await at('../../../mount/stats.js');
const { Threads } = await at('../../../mount/fuse/threads.js');
const { isNonBlocking, memfdCreate, setNonBlocking } = await at('../../../system/libc.js');
const fds = [memfdCreate('a'), memfdCreate('b')];
setNonBlocking(fds[1], true);
const threads = new Threads(fds, createLedger(), createStats(), {});
await threads.loaded;
console.log(fds.map(isNonBlocking).join());
// parked threads keep it from ending by itself
process.exit(0);
`;

t.test('a server that loads beside another leaves its flags alone', (t) => {
  const args = ['--input-type=module', '-e', BESIDE, '--', import.meta.url];
  t.equal(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 }), 'false,true\n');
  t.end();
});
