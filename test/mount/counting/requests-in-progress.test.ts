/** Requests in progress, by file, and how long they have been seen. */
import t from 'tap';
import { RequestsInProgress } from '../../../mount/counting/requests-in-progress.js';

t.test('counts by file; the age is that of the oldest', async (t) => {
  const requests = new RequestsInProgress();
  const work = (unique: number, nodeId: number) => ({ unique, nodeId, tid: 0 });
  requests.look([work(2, 10), work(4, 10), work(6, 11)], 1000);
  t.same(requests.of(10), { count: 2, oldestMs: 0 });
  requests.look([work(4, 10), work(8, 10)], 3000);
  t.same(requests.of(10), { count: 2, oldestMs: 2000 });
  t.same(requests.of(11), { count: 0, oldestMs: 0 });
  requests.look([work(8, 10)], 4000);
  t.same(requests.of(10), { count: 1, oldestMs: 1000 });
});
