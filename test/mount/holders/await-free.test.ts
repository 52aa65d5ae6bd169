/** When a vbd counts as unused, while servers die: with a kernel that forgets a node once, and tells the server that runs. */
import t from 'tap';
import { awaitFree, type DetachContext } from '../../../mount/holders/await-free.js';
import { ForgetWaiters } from '../../../mount/holders/forget-waiters.js';

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

t.test('a client that goes away ends the wait, and the vbd can be opened again', async (t) => {
  const { context, state } = contextOf({ deaths: 0, isUsed: true });
  const client = new AbortController();
  const waiting = {
    ...context,
    // the kernel never forgets it
    awaitForget: (_: number, __: number, signal?: AbortSignal) =>
      new Promise<boolean>((resolve) => {
        signal?.addEventListener('abort', () => resolve(false));
        setImmediate(() => client.abort(new Error('the client went away')));
      }),
  };
  const patience = { waitMs: 60_000, signal: client.signal };
  await t.rejects(awaitFree(waiting, { vdev: 'xvda', nodeId: 7 }, patience), { message: 'the client went away' });
  t.notOk(state.leaving);
  t.equal(state.attempts, 1);
});

t.test('servers that die all the time do not make it wait long', async (t) => {
  let now = 1_000_000;
  t.intercept(Date, 'now', { value: () => now });
  for (const [waitMs, mostMs] of [
    [0, 5_000],
    [8_000, 12_000],
  ] as const) {
    const { context, state } = contextOf({ deaths: 1000, isUsed: true });
    const begun = now;
    const dying = {
      ...context,
      awaitForget: async (_: number, timeoutMs: number) => {
        await new Promise(setImmediate);
        state.restarts += 1;
        now += timeoutMs;
        return false;
      },
    };
    await t.rejects(awaitFree(dying, { vdev: 'xvda', nodeId: 7 }, { waitMs }), { code: 'BUSY' });
    t.ok(now - begun >= waitMs && now - begun <= mostMs, `${now - begun} ms, asked to wait for ${waitMs}`);
    t.notOk(state.leaving);
  }
});

t.test('a wait for the kernel ends with its signal', async (t) => {
  const waiters = new ForgetWaiters();
  const client = new AbortController();
  const waiting = waiters.wait(7, 60_000, client.signal);
  client.abort();
  t.equal(await waiting, false);
  const again = waiters.wait(7, 60_000, new AbortController().signal);
  waiters.tell(7);
  t.equal(await again, true);
});
