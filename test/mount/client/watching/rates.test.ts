/** Rates: differences of two counts, also when a bus, its server or a vbd was replaced in between. */
import t from 'tap';
import { add, percentile, subtract, total, totalUs } from '../../../../mount/client/watching/histogram.js';
import { ratesBetween } from '../../../../mount/client/watching/rates.js';
import type { BusCounters, KindCounters, VbdCounters } from '../../../../mount/control/interface.js';

const NOTHING: KindCounters = { requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] };

function kind(changes: Partial<KindCounters>): KindCounters {
  return { ...NOTHING, ...changes };
}

function vbd(changes: Partial<VbdCounters> = {}): VbdCounters {
  return {
    ...{ vdev: 'xvda', id: 2, disk: null, driver: 'aio', image: '/srv/a.img', mode: 'w', size: 1 << 20, opens: 0 },
    ...{ state: 'running', passthrough: false, broken: null, imageState: null },
    ...{ inProgress: 0, oldestMs: 0, flushErrors: 0 },
    ...{ read: NOTHING, write: NOTHING, flush: NOTHING, discard: NOTHING },
    ...changes,
  };
}

function bus(changes: Partial<BusCounters> = {}): BusCounters {
  const process = { pid: 7, cpuMs: 100, rssBytes: 1, pssBytes: null };
  return {
    ...{ bus: '0', path: '/run/fusetap/bus/0', run: '1', monotonicMs: 0, state: 'running', restarts: 0, waiting: 0 },
    ...{ keeper: process, server: process, vbds: [vbd()] },
    ...changes,
  };
}

t.test('a histogram of an interval', async (t) => {
  const earlier = [[8, 10, 100] as const, [10, 12, 5] as const].map(
    ([a, b, c]) => [a, b, c] as [number, number, number],
  );
  const later: [number, number, number][] = [
    [8, 10, 100],
    [10, 12, 15],
    [100, 120, 90],
  ];
  t.same(subtract(later, earlier), [
    [10, 12, 10],
    [100, 120, 90],
  ]);
  t.same(subtract(earlier, later), [], 'never less than nothing');
  t.same(add([earlier, [[8, 10, 1]]]), [
    [8, 10, 101],
    [10, 12, 5],
  ]);
  t.equal(total(later), 205);
  t.equal(totalUs([[8, 10, 2]]), 18);
  t.equal(percentile([], 0.5), null);
  t.equal(percentile([[8, 10, 4]], 0.5), 9);
  t.equal(percentile(subtract(later, earlier), 0.05), 11);
  t.ok((percentile(subtract(later, earlier), 0.99) ?? 0) > 118);
});

t.test('rates of an interval', async (t) => {
  const earlier = bus({ vbds: [vbd({ read: kind({ requests: 10, bytes: 4096, histogram: [[8, 10, 10]] }) })] });
  const read = kind({
    requests: 30,
    bytes: 4096 + 8192,
    errors: 1,
    histogram: [
      [8, 10, 10],
      [1000, 1200, 20],
    ],
  });
  const later = bus({
    monotonicMs: 2000,
    restarts: 1,
    server: { pid: 7, cpuMs: 1100, rssBytes: 5, pssBytes: 3 },
    vbds: [vbd({ read, inProgress: 3, oldestMs: 1500 })],
  });
  const rates = ratesBetween(earlier, later);
  t.match(rates, { seconds: 2, restarts: 1, newRestarts: 1, server: { cpuPercent: 50, rssBytes: 5, pssBytes: 3 } });
  const [first] = rates.vbds;
  t.match(first, { perSecond: 10, bytesPerSecond: 4096, inProgress: 3, oldestMs: 1500 });
  t.match(first?.read, { perSecond: 10, newErrors: 1, requests: 30, latencyUs: { p50: 1100 } });
  t.equal(first?.queue, 0.01, '20 requests of 1100 µs in 2 s');
  t.match(first?.write, { perSecond: 0, latencyUs: { p50: null, p99: null } });
});

t.test('counted once: no rates, but counts', async (t) => {
  const rates = ratesBetween(null, bus({ vbds: [vbd({ write: kind({ requests: 5, histogram: [[8, 10, 5]] }) })] }));
  t.match(rates, { seconds: 0, server: { cpuPercent: 0 } });
  t.match(rates.vbds[0], { perSecond: 0, queue: 0, write: { requests: 5, latencyUs: { p50: null } } });
});

t.test('what was replaced in between is counted from its beginning, never backward', async (t) => {
  const [few, many] = [kind({ requests: 5, bytes: 5, histogram: [[8, 10, 5]] }), kind({ requests: 50, bytes: 50 })];
  const earlier = bus({ vbds: [vbd({ read: many })], server: { pid: 7, cpuMs: 5000, rssBytes: 1, pssBytes: null } });
  const now = { monotonicMs: 1000, vbds: [vbd({ read: few })] };
  const again = ratesBetween(earlier, bus({ ...now, vbds: [vbd({ id: 3, read: few })] }));
  t.match(again.vbds[0]?.read, { perSecond: 5, latencyUs: { p50: 9 } }, 'another vbd of that name');
  t.match(ratesBetween(earlier, bus({ ...now, run: '2' })).vbds[0], { perSecond: 5 }, 'another bus of that name');
  t.match(ratesBetween(earlier, bus(now)).vbds[0], { perSecond: 0, bytesPerSecond: 0 }, 'a count that is lower');
  const server = { pid: 8, cpuMs: 200, rssBytes: 1, pssBytes: null };
  t.match(ratesBetween(earlier, bus({ ...now, server })), { server: { cpuPercent: 20 } }, 'another server');
  t.match(ratesBetween(earlier, bus({ ...now, keeper: null, restarts: null })), { keeper: null, newRestarts: 0 });
});
