import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { passFds, takePassed } from '../../../mount/server/passed-fds.js';
import { socketPair } from '../../../system/libc.js';

t.test('descriptors arrive with the number of their command', async (t) => {
  const [ours, theirs] = socketPair(true);
  const fd = openSync('/dev/null', 'r');
  t.teardown(() => [ours, theirs, fd].forEach((each) => void closeSync(each)));
  t.equal(passFds(ours, 7, [fd]), true);
  const passed = takePassed(theirs, 7);
  const taken = passed.take(fd, true);
  t.ok(taken > 2);
  closeSync(taken);
  passed.end();
});

t.test('a server that has just died is no error: its exit tells', async (t) => {
  const [ours, theirs] = socketPair(true);
  const fd = openSync('/dev/null', 'r');
  t.teardown(() => [ours, fd].forEach((each) => void closeSync(each)));
  closeSync(theirs);
  t.equal(passFds(ours, 7, [fd]), true);
});
