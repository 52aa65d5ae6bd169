/**
 * Images in a Ceph cluster that is started on this machine, in memory: the driver rbd, and fio's own client, which has no
 * FUSE. Both use librbd without its cache.
 *
 *      fio ──────────────► librbd ──► OSD
 *      fio ──► vbd ──────► librbd ──► OSD
 */
import { join } from 'node:path';
import { Ceph, whyNoCeph } from '../../../../test/drivers/rbd/ceph.js';
import { runCommand } from '../command.js';
import { attachWords } from './fusetap.js';
import type { Place, Target } from './target.js';

const IMAGE = 'bench';

/** A cluster with an image of that size, filled. */
async function startCluster({ sizeBytes, directory, undo }: Place): Promise<Ceph> {
  // in memory: twice the image, and what the OSD has besides
  const gib = Math.ceil((2 * sizeBytes) / 2 ** 30) + 2;
  const cluster = await Ceph.start(join(directory, 'ceph'), { gib, settings: 'plain' });
  undo.defer(() => cluster.stop());
  await cluster.create(IMAGE, sizeBytes);
  const words = ['-c', cluster.conf, 'bench', IMAGE, '--io-type', 'write', '--io-size', '4M', '--io-threads', '4'];
  await runCommand('rbd', [...words, '--io-pattern', 'seq', '--io-total', String(sizeBytes)], { timeoutMs: 300_000 });
  return cluster;
}

/** fio finds a cluster only by CEPH_CONF. */
const client: Target = {
  name: 'rbd-fio',
  description: "fio's own client of Ceph",
  noLoop: 'it is no file',
  findMissing: async () => whyNoCeph() || null,
  async start(place) {
    const cluster = await startCluster(place);
    return { path: `rbd:rbd/${IMAGE}:conf=${cluster.conf}`, pids: [], stop: () => cluster.stop() };
  },
};

const driver: Target = {
  name: 'fusetap-rbd',
  description: 'driver rbd over the same',
  findMissing: client.findMissing,
  async start(place) {
    const cluster = await startCluster(place);
    const words = [`rbd:${IMAGE}`, '--option', `conf=${cluster.conf}`];
    const { path, pids, stop } = await attachWords(words, place);
    return { path, pids, stop: () => stop().then(() => cluster.stop()) };
  },
};

export const rbdTargets: readonly Target[] = [client, driver];
