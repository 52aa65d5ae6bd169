import t from 'tap';
import { resolveBus } from '../../../mount/client/index.js';
import { detachWhenUnused } from '../../../mount/file-system/detach-when-unused.js';
import { aVbd, fakeBus, tempDir } from '../../cli/fake-bus.js';

t.test('a vbd is marked; a bus of an older version knows no marks', async (t) => {
  const runtime = tempDir(t);
  const refuse = { status: 404, body: { error: { code: 'NOT_FOUND', message: 'a vbd has no detach-when-unused' } } };
  const bus = await fakeBus(t, runtime, 'new', () => aVbd({ detachesWhenUnused: true }));
  await fakeBus(t, runtime, 'old', () => refuse);
  await fakeBus(t, runtime, 'busy', () => ({
    status: 409,
    body: { error: { code: 'BUSY', message: 'it is ending' } },
  }));
  t.equal(await detachWhenUnused(await resolveBus('new', runtime), 'xvda'), true);
  t.match(bus.asked, [{ method: 'POST', url: '/vbds/xvda/detach-when-unused' }]);
  t.equal(await detachWhenUnused(await resolveBus('old', runtime), 'xvda'), false);
  await t.rejects(detachWhenUnused(await resolveBus('busy', runtime), 'xvda'), { code: 'BUSY' });
});
