/** When a vbd counts as unused, while servers die: with a kernel that forgets a node once, and tells the server that runs. */
import t from 'tap';
import { awaitFree, type DetachContext } from '../../../mount/holders/await-free.js';

/** A context in which the first `deaths` servers die with the FORGET that they have read. */
function contextOf({ deaths, isUsed = false }: { deaths: number; isUsed?: boolean }) {
  const state = { restarts: 0, leaving: false, cached: true, attempts: 0 };
  const context: DetachContext = {
    ...{ bus: '0', runtimeDir: '/nowhere', mountpoint: '/nowhere/bus', mountDev: '0:1' },
    setLeaving: async (_, leaving) => {
      state.leaving = leaving;
      if (leaving) state.attempts += 1;
      return true;
    },
    lookUp: async () => {
      state.cached = !state.leaving;
    },
    isPaused: () => false,
    opens: () => 0,
    restarts: () => state.restarts,
    awaitForget: async () => {
      // the lookup that drops the name comes after this call
      await new Promise(setImmediate);
      if (isUsed || state.cached) return false;
      if (state.restarts >= deaths) return true;
      state.restarts += 1;
      return false;
    },
  };
  return { context, state };
}

t.test('a server that dies with the FORGET makes no vbd look used', async (t) => {
  for (const deaths of [0, 1, 2, 5]) {
    const { context, state } = contextOf({ deaths });
    await awaitFree(context, { vdev: 'xvda', nodeId: 7 }, { waitMs: 0 });
    t.equal(state.attempts, deaths + 1);
    t.ok(state.leaving, 'it cannot be opened any more');
  }
});

t.test('a vbd that is used is busy, also if servers die all the time', async (t) => {
  for (const deaths of [0, 1000]) {
    const { context, state } = contextOf({ deaths, isUsed: true });
    const { awaitForget } = context;
    const dying = {
      ...context,
      awaitForget: async (id: number, ms: number) => {
        if (deaths > 0) state.restarts += 1;
        return await awaitForget(id, ms);
      },
    };
    await t.rejects(awaitFree(dying, { vdev: 'xvda', nodeId: 7 }, { waitMs: 0 }), { code: 'BUSY' });
    t.notOk(state.leaving);
    t.ok(state.attempts < 20, `${state.attempts} attempts`);
  }
});
