import t from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import { beginBus } from '../../../mount/client/begin-bus.js';
import type { StartOptions } from '../../../mount/keeper/start.js';
import type { BusPlace } from '../../../mount/runtime/bus-place.js';

const place = { name: '0' } as BusPlace;
const tooOld = new FusetapError('UNSUPPORTED', 'the kernel speaks FUSE 7.26');

/** Starts a bus; the test says which transports work. */
async function begin(outcomes: { kernel?: Error; native?: Error }, options: Partial<StartOptions> = {}) {
  const tried: string[] = [];
  const notes: string[] = [];
  const start = async (_: BusPlace, { transport = 'kernel' }: StartOptions): Promise<void> => {
    tried.push(transport);
    const error = transport === 'kernel' ? outcomes.kernel : outcomes.native;
    if (error !== undefined) throw error;
  };
  const begun = beginBus(place, { persistent: false, ...options }, (text) => notes.push(text), start);
  return { error: await begun.catch((error: unknown) => error), tried, notes };
}

t.test('the kernel transport, if it can run', async (t) => {
  t.same(await begin({}), { error: undefined, tried: ['kernel'], notes: [] });
});

t.test('else fuse-native, with a remark', async (t) => {
  const { error, tried, notes } = await begin({ kernel: tooOld });
  t.equal(error, undefined);
  t.same(tried, ['kernel', 'fuse-native']);
  t.match(notes, [/bus 0 runs on transport fuse-native.*7\.26/]);
});

t.test('not if the user named a transport', async (t) => {
  t.same(await begin({ kernel: tooOld }, { transport: 'kernel' }), { error: tooOld, tried: ['kernel'], notes: [] });
});

t.test('not after an error that fuse-native would have too', async (t) => {
  const denied = new FusetapError('DENIED', 'no');
  t.same(await begin({ kernel: denied }), { error: denied, tried: ['kernel'], notes: [] });
});

t.test(
  'where neither can, the reason is that of the kernel transport; a bus that is there already is asked',
  async (t) => {
    const missing = new FusetapError('UNSUPPORTED', 'no libfuse');
    t.same(await begin({ kernel: tooOld, native: missing }), {
      error: tooOld,
      tried: ['kernel', 'fuse-native'],
      notes: [],
    });
    const running = new FusetapError('BUSY', 'already running: bus 0');
    t.match(await begin({ kernel: tooOld, native: running }), { error: running, notes: [] });
  },
);
