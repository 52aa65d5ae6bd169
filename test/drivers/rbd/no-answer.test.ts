/** An attach to a cluster that does not answer fails, and leaves nothing behind when the cluster answers again. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { eventually } from '../../e2e/command.js';
import { Ceph, whyNoCeph } from './ceph.js';
import { openRbd } from './open.js';

t.setTimeout(300_000);

t.test('monitor and OSD do not answer', { skip: whyNoCeph() }, async (t) => {
  const ceph = await Ceph.start(join(tmpdir(), 'ceph'));
  t.teardown(() => ceph.stop());
  await ceph.create('disk', 1 << 20);
  const options = { uri: 'rbd:disk', conf: ceph.conf };
  const writer = frontDisk(await openRbd(options), { readOnly: false });
  await ceph.pause('mon');
  await t.rejects(openRbd(options, { readOnly: true }), {
    code: 'NOT_FOUND',
    message: /no monitor of the cluster answers/,
  });
  ceph.resume('mon');
  await ceph.pause('osd');
  await t.rejects(openRbd(options, { readOnly: true }), {
    code: 'FAILED',
    message: /has not answered for 20 s/,
    hint: /an OSD may be down/,
  });
  ceph.resume('osd');
  await writer.write(Buffer.from('x'), 0);
  await writer.close();
  await eventually('nobody has it open', 60_000, async () => !(await ceph.rbd('status', 'disk')).includes('watcher='));
  await (await openRbd(options)).close();
});

t.test(
  'a disk without requests is closed in time, and releases its lock when the cluster answers',
  {
    skip: whyNoCeph(),
  },
  async (t) => {
    const ceph = await Ceph.start(join(tmpdir(), 'ceph-closed'));
    t.teardown(() => ceph.stop());
    await ceph.create('disk', 1 << 20);
    const options = { uri: 'rbd:disk', conf: ceph.conf };
    const disk = frontDisk(await openRbd(options), { readOnly: false });
    await disk.write(Buffer.from('x'), 0);
    const given = frontDisk(await openRbd({ ...options, uri: 'rbd:ready' }), { readOnly: false });
    await ceph.pause('osd');
    const since = performance.now();
    const closing = given.close();
    given.giveUp();
    await closing;
    t.ok(performance.now() - since < 2_000, 'at once, if it is given up');
    await disk.close();
    t.ok(performance.now() - since < 9_000, 'the bus calls it a failure after 10 s');
    ceph.resume('osd');
    for (const image of ['disk', 'ready']) {
      const again = await eventually('the lock is released', 60_000, () =>
        openRbd({ ...options, uri: `rbd:${image}` }).catch(() => undefined),
      );
      await again.close();
    }
  },
);
