/** mount/counting/changes.ts: who asks again is told only what has changed, and misses nothing. */
import fc from 'fast-check';
import t from 'tap';
import type { KindCounters, VbdCounters } from '../../../mount/control/interface.js';
import { Changes } from '../../../mount/counting/changes.js';

const NOTHING: KindCounters = { requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] };

function vbd(id: number, changes: Partial<VbdCounters> = {}): VbdCounters {
  return {
    ...{ vdev: `d${id}`, id, disk: null, driver: 'aio', image: '/srv/a.img', mode: 'w', size: 1 << 20, opens: 0 },
    ...{ state: 'running', passthrough: false, broken: null, imageState: null },
    ...{ inProgress: 0, oldestMs: 0, flushErrors: 0 },
    ...{ read: NOTHING, write: NOTHING, flush: NOTHING, discard: NOTHING },
    ...changes,
  };
}

t.test('only what has changed', async (t) => {
  const changes = new Changes();
  const first = changes.since(undefined, [vbd(2), vbd(3)]);
  t.equal(first.ids, undefined, 'all of them');
  t.equal(first.vbds.length, 2);
  t.same(changes.since(first.mark, [vbd(2), vbd(3)]), { mark: first.mark?.replace(/1$/, '2'), ids: [2, 3], vbds: [] });
  const busy = vbd(3, { read: { ...NOTHING, requests: 1 } });
  t.same(changes.since(first.mark, [vbd(2), busy]).vbds, [busy]);
  const [changed, again] = [changes.since(first.mark, [vbd(2), busy]), changes.since(first.mark, [vbd(2), busy])];
  t.same(changed.vbds, [busy], 'also if somebody else was told of it meanwhile');
  t.same(changes.since(again.mark, [vbd(2, { state: 'paused' }), busy]).vbds, [vbd(2, { state: 'paused' })]);
});

t.test('vbds that are new or gone', async (t) => {
  const changes = new Changes();
  const { mark } = changes.since(undefined, [vbd(2), vbd(3)]);
  t.match(changes.since(mark, [vbd(3), vbd(4)]), { ids: [3, 4], vbds: [{ id: 4 }] });
});

t.test('a mark of another process, or none, gets all', async (t) => {
  const changes = new Changes();
  const { mark = '' } = changes.since(undefined, [vbd(2)]);
  const strange = [new Changes().since(undefined, []).mark, '', '.', mark.replace(/1$/, ''), `${mark}e9`, `${mark}.1x`];
  for (const other of [...strange.slice(0, 5), mark.replace(/1$/, '-1'), 'x'.repeat(100_000)]) {
    const answer = changes.since(other, [vbd(2)]);
    t.equal(answer.ids, undefined, JSON.stringify(other)?.slice(0, 60));
    t.equal(answer.vbds.length, 1);
  }
});

t.test('clients that put the answers together have what there is', async (t) => {
  const step = fc.record({
    /** the opens of the vbds that there are now */
    now: fc.dictionary(fc.constantFrom('2', '3', '4', '5'), fc.nat(2)),
    /** which of three clients asks */
    client: fc.nat(2),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const changes = new Changes();
      const clients: { mark: string | undefined; vbds: VbdCounters[] }[] = [0, 1, 2].map(() => ({
        mark: undefined,
        vbds: [],
      }));
      for (const { now, client } of steps) {
        const vbds = Object.entries(now).map(([id, opens]) => vbd(Number(id), { opens }));
        const known = clients[client];
        if (known === undefined) continue;
        const { mark, ids, vbds: told } = changes.since(known.mark, vbds);
        const all = new Map([...known.vbds, ...told].map((one) => [one.id, one]));
        known.vbds = ids === undefined ? told : ids.flatMap((id) => all.get(id) ?? []);
        known.mark = mark;
        t.strictSame(known.vbds, vbds);
      }
    }),
  );
});
