/** A bus of an older version that is asked for what it does not know. */
import t from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import { explainOlderBus } from '../../../mount/client/follow.js';
import type { BusPlace } from '../../../mount/runtime/bus-place.js';

const place = { name: 'guests' } as BusPlace;

t.test('a request that it does not know', async (t) => {
  const answered = new FusetapError('NOT_FOUND', 'a vbd has no resize', { hint: 'its actions are pause and resume' });
  t.match(explainOlderBus(place, answered), {
    code: 'UNSUPPORTED',
    message: /^bus guests was started by an older fusetap/,
    hint: /stop the bus and start it again/,
  });
});

t.test('every other error stays as it is', async (t) => {
  for (const error of [new FusetapError('NOT_FOUND', 'no vbd xvda on bus guests'), new Error('a vbd has no resize')]) {
    t.equal(explainOlderBus(place, error), error);
  }
});
