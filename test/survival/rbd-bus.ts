/** A bus with a disk in a real Ceph cluster. All tests of a file use one cluster, and each has an image of its own. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import type { Mode } from '../../mount/images/mode.js';
import { Ceph } from '../drivers/rbd/ceph.js';
import { type Bus, startBus } from './bus.js';
import { FIO_DISK_BYTES } from './fio.js';

export interface ServedByCeph {
  readonly bus: Bus;
  readonly ceph: Ceph;
  readonly vbd: VbdInfo;
  readonly image: string;
  readonly options: Record<string, string>;
}

/** @param file the test of the file, at whose end the cluster ends */
export function servedByCeph(
  file: Test,
  store: 'memstore' | 'bluestore',
): (t: Test, mode?: Mode) => Promise<ServedByCeph> {
  let cluster: Promise<Ceph> | null = null;
  let images = 0;
  file.teardown(async () => (await cluster?.catch(() => null))?.stop());
  return async (t, mode = 'w') => {
    cluster ??= Ceph.start(join(tmpdir(), 'ceph'), { store });
    const ceph = await cluster;
    const image = `disk${++images}`;
    await ceph.create(image, FIO_DISK_BYTES);
    const bus = await startBus(t);
    const options = { uri: `rbd:${image}`, conf: ceph.conf };
    const vbd = await bus.attach({ driver: 'rbd', image: null, options, mode });
    return { bus, ceph, vbd, image, options };
  };
}
