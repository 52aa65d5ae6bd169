/**
 * Loads threads while another server has set its devices non-blocking, and prints for each device whether it still is
 * afterwards. It is a separate process, because parked threads keep a process from ending by itself.
 */
import { Threads } from '../../../../mount/fuse/event-loop/threads.js';
import { createStats } from '../../../../mount/ledger/counters.js';
import { createLedger } from '../../../../mount/ledger/ledger.js';
import { isNonBlocking, memfdCreate, setNonBlocking } from '../../../../system/libc.js';

const fds = [memfdCreate('first'), memfdCreate('second')] as const;
setNonBlocking(fds[1], true);
const fail = (why: unknown): never => {
  console.error(why);
  process.exit(1);
};
const quiet = {
  request() {},
  requestIn() {},
  underWay: () => 0,
  answerMs: () => 0,
  isForThreads: () => false,
  memoryWanted() {},
  mapped() {},
  stuck() {},
};
const events = { ...quiet, gone: fail, failed: fail };
await new Threads({ deviceFds: fds, ledgerFd: createLedger(), statsFd: createStats() }, events).loaded;
console.log(fds.map(isNonBlocking).join());
process.exit(0);
