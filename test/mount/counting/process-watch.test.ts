/** What processes use: nobody waits for the proportional memory. */
import t from 'tap';
import { ProcessWatch } from '../../../mount/counting/process-watch.js';

t.test('the proportional memory is measured in the background', async (t) => {
  let measured: (bytes: number) => void = () => {};
  let times = 0;
  const watch = new ProcessWatch(() => {
    times += 1;
    return new Promise((resolve) => {
      measured = resolve;
    });
  });
  t.match(watch.of(process.pid), { pid: process.pid, pssBytes: null }, 'it is not known yet');
  t.match(watch.of(process.pid), { pssBytes: null });
  measured(4096);
  await new Promise((resolve) => setImmediate(resolve));
  t.match(watch.of(process.pid), { pssBytes: 4096 });
  t.equal(times, 1);
  t.equal(watch.of(null), null);
});
