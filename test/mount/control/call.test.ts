/** `call` makes the request from its line and its parts. */
import t, { type Test } from 'tap';
import { call, callEither } from '../../../mount/control/call.js';
import { type BusPlace, resolveBus } from '../../../mount/runtime/bus-place.js';
import { type Asked, fakeBus, tempDir } from '../../cli/fake-bus.js';

async function aPlace(t: Test): Promise<{ place: BusPlace; asked: readonly Asked[] }> {
  const runtime = tempDir(t);
  const { asked } = await fakeBus(t, runtime, '0', () => ({ ok: true }));
  return { place: await resolveBus('0', runtime), asked };
}

t.test('path, query and body', async (t) => {
  const { place, asked } = await aPlace(t);
  t.same(await call(place, 'GET /bus', {}), { ok: true });
  await call(place, 'DELETE /vbds/{vdev}', { vdev: '/dev/xvda', query: { force: '1', wait: '2.5' } });
  await call(place, 'DELETE /vbds/{vdev}', { vdev: '$&', query: { wait: undefined } });
  await callEither(place, 'POST /vbds/{vdev}/pause', { vdev: 'xvda', query: { copy: '1:2:3' } });
  await call(place, 'POST /stop', { body: { force: true } });
  t.same(
    asked.map(({ method, url, body }) => [`${method} ${url}`, ...(body === undefined ? [] : [body])]),
    [
      ['GET /bus'],
      ['DELETE /vbds/%2Fdev%2Fxvda?force=1&wait=2.5'],
      ['DELETE /vbds/%24%26'],
      ['POST /vbds/xvda/pause?copy=1%3A2%3A3'],
      ['POST /stop', { force: true }],
    ],
  );
});

t.test('the types follow the row', async (t) => {
  // never called: the test is that wrong calls do not compile
  const wrong = (place: BusPlace): unknown[] => [
    // @ts-expect-error no row has that line
    call(place, 'POST /vbds/{vdev}/burn', { vdev: 'xvda' }),
    // @ts-expect-error the path has a vdev
    call(place, 'POST /vbds/{vdev}/reset', {}),
    // @ts-expect-error an image is a path
    call(place, 'POST /vbds/{vdev}/swap', { vdev: 'xvda', body: { driver: 'aio', image: 1 } }),
    // @ts-expect-error the request reports no progress
    call(place, 'POST /upgrade', { progress: () => {} }),
    // @ts-expect-error there is no such key
    call(place, 'DELETE /vbds/{vdev}', { vdev: 'xvda', query: { now: '1' } }),
    // @ts-expect-error a server without a keeper cannot
    callEither(place, 'POST /upgrade', {}),
  ];
  t.type(wrong, 'function');
});
