/** Watching several buses: one that hangs, one that begins, one that ends, one of an older version. */
import { symlinkSync } from 'node:fs';
import t from 'tap';
import { BusWatch } from '../../../../mount/client/watching/bus-watch.js';
import { aBus, aVbd, fakeBus, fusetap, tempDir } from '../../../cli/fake-bus.js';

const NOTHING = { requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] };

/** The counters of a bus that has served `requests` reads in `monotonicMs`. */
function counted(bus: string, monotonicMs: number, requests: number): object {
  const read = { ...NOTHING, requests, bytes: requests * 512, histogram: [[8, 10, requests]] };
  const facts = { vdev: 'xvda', id: 2, disk: null, driver: 'aio', image: '/a', mode: 'w', size: 512, state: 'running' };
  const now = { passthrough: false, broken: null, imageState: null, opens: 1, inProgress: 0, oldestMs: 0 };
  const vbd = { ...facts, ...now, flushErrors: 0, read, write: NOTHING, flush: NOTHING, discard: NOTHING };
  const processes = { restarts: 0, keeper: null, server: null, waiting: null };
  return { bus, path: `/run/${bus}`, run: '1', monotonicMs, state: 'running', ...processes, vbds: [vbd] };
}

t.test('a bus that hangs does not delay the others, and its late answer is used', async (t) => {
  const runtime = tempDir(t);
  let asked = 0;
  let answerLate: () => void = () => {};
  const later = new Promise<void>((resolve) => {
    answerLate = resolve;
  });
  await fakeBus(t, runtime, 'good', () => counted('good', 1000 * asked++, 100 * asked));
  const slow = await fakeBus(t, runtime, 'slow', (_, response) => {
    void later.then(() => {
      response.writeHead(200, { 'fusetap-interface': '1.1' }).end(JSON.stringify(counted('slow', 5000, 7)));
    });
    return undefined;
  });
  const watch = new BusWatch(runtime, { limitMs: 2_000 });
  await watch.look();
  const [good, hung] = await watch.look();
  t.match(good, { bus: 'good', state: 'running', seconds: 1, trouble: null });
  t.match(good?.vbds[0]?.read, { perSecond: 100, latencyUs: { p50: 9 } });
  t.match(hung, { bus: 'slow', state: 'not-answering', trouble: 'bus slow has not answered within 2 s', vbds: [] });
  t.equal(slow.asked.length, 1, 'it is not asked again before it has answered');
  answerLate();
  let [, answered] = await watch.look();
  // the answer may need longer than the limit to arrive
  while (answered?.state === 'not-answering') [, answered] = await watch.look();
  t.match(answered, { bus: 'slow', state: 'running', seconds: 0, vbds: [{ read: { requests: 7, perSecond: 0 } }] });
});

t.test('a bus that hangs delays only the first look', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, 'slow', () => undefined);
  const watch = new BusWatch(runtime, { limitMs: 2_000 });
  t.teardown(() => watch.close());
  await watch.look();
  const begun = performance.now();
  for (let i = 0; i < 5; i++) t.match(await watch.look(), [{ bus: 'slow', state: 'not-answering' }]);
  t.ok(performance.now() - begun < 5_000, 'five looks take less than five limits');
});

t.test('counts are those of now, not an answer that came after an earlier call', async (t) => {
  const runtime = tempDir(t);
  let answer: (() => void) | null = null;
  let requests = 0;
  await fakeBus(t, runtime, '0', (_, response) => {
    requests += 1;
    if (requests > 1) return counted('0', 1, requests);
    answer = () =>
      response.writeHead(200, { 'fusetap-interface': '1.1' }).end(JSON.stringify(counted('0', 1, requests)));
    return undefined;
  });
  const watch = new BusWatch(runtime, { limitMs: 500 });
  t.teardown(() => watch.close());
  t.match(await watch.count(), [{ trouble: { bus: '0' } }]);
  (answer as (() => void) | null)?.();
  let [look] = await watch.count();
  // the late answer may be on its way still
  while (look?.info === undefined) {
    await new Promise((resolve) => setImmediate(resolve));
    [look] = await watch.count();
  }
  t.equal(requests, 2, 'it was asked again');
  t.equal(look.info.vbds[0]?.read.requests, 2);
});

t.test('metrics end soon, although a bus never answers', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, 'slow', () => undefined);
  const begun = performance.now();
  const { status, stdout } = await fusetap(runtime, ['metrics']);
  t.equal(status, 0);
  t.match(stdout, /bus="slow",state="not-answering"} 1/);
  t.ok(performance.now() - begun < 25_000, 'it did not wait for the bus, which would take 30 s');
});

t.test('buses begin and end', async (t) => {
  const runtime = tempDir(t);
  const watch = new BusWatch(runtime);
  t.same(await watch.look(), [], 'there is no runtime directory yet');
  let ms = 0;
  const a = await fakeBus(t, runtime, 'a', () => {
    ms += 1000;
    return counted('a', ms, 5);
  });
  t.match(await watch.look(), [{ bus: 'a', seconds: 0 }]);
  await fakeBus(t, runtime, 'b', () => counted('b', 1, 5));
  t.match(await watch.look(), [
    { bus: 'a', seconds: 1 },
    { bus: 'b', seconds: 0 },
  ]);
  a.leave();
  t.same(
    (await watch.look()).map(({ bus }) => bus),
    ['b'],
  );
  // something that is no bus at all must not end the watch
  symlinkSync('/nowhere', `${runtime}/state/c`);
  t.same(
    (await watch.look()).map(({ bus }) => bus),
    ['b'],
  );
});

t.test('a bus of an older version has rates, but no latencies', async (t) => {
  const runtime = tempDir(t);
  let requests = 0;
  await fakeBus(t, runtime, '0', ({ url }) => {
    if (url === '/bus') return aBus('0', [aVbd()]);
    const none = { requests: 0, bytes: 0, errors: 0, latencyUs: { p50: null, p99: null, max: null } };
    const read = { requests, bytes: 0, errors: 0, latencyUs: { p50: 1, p99: 2, max: 3 } };
    if (url === '/stats') {
      requests += 10;
      return [{ bus: '0', vdev: 'xvda', passthrough: false, read, write: none, flush: none, discard: none }];
    }
    return { status: 404, body: { error: { code: 'NOT_FOUND', message: `no such request: GET ${url}` } } };
  });
  const watch = new BusWatch(runtime);
  t.match(await watch.look(), [{ bus: '0', seconds: 0 }]);
  const [bus] = await watch.look();
  t.match(bus, { server: null, vbds: [{ vdev: 'xvda', image: '/srv/disk.img', read: { requests: 10 } }] });
  const read = bus?.vbds[0]?.read;
  t.ok((read?.perSecond ?? 0) > 0);
  t.same(read?.latencyUs, { p50: null, p99: null });
});

t.test('a bus tells only what has changed: the rest is as before', async (t) => {
  const runtime = tempDir(t);
  let asked = 0;
  const bus = await fakeBus(t, runtime, '0', () => {
    asked += 1;
    const all = counted('0', 1000 * asked, 100) as { vbds: object[] };
    const [vbd] = all.vbds;
    const other = { ...vbd, vdev: 'xvdb', id: 3 };
    const busy = { ...other, read: { ...NOTHING, requests: 300, bytes: 512, histogram: [[8, 10, 300]] } };
    if (asked === 1) return { ...all, mark: 'a.1', vbds: [vbd, other] };
    if (asked === 2) return { ...all, mark: 'a.2', ids: [2, 3], vbds: [busy] };
    return { ...all, mark: 'a.3', ids: [3], vbds: [] };
  });
  const watch = new BusWatch(runtime);
  await watch.look();
  const [second] = await watch.look();
  t.match(second?.vbds, [
    { vdev: 'xvda', perSecond: 0, read: { requests: 100, perSecond: 0 } },
    { vdev: 'xvdb', perSecond: 200, read: { requests: 300, perSecond: 200 }, latencyUs: { p50: 9 } },
  ]);
  const [third] = await watch.look();
  t.equal(third?.vbds.length, 1);
  t.match(third?.vbds, [{ vdev: 'xvdb', perSecond: 0, latencyUs: { p50: null }, read: { requests: 300 } }]);
  t.same(
    bus.asked.map(({ url }) => url),
    ['/counters', '/counters?since=a.1', '/counters?since=a.2'],
  );
});
