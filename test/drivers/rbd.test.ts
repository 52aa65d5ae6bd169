/** The driver rbd passes the suite over a real cluster: with a table of objects, and with stripes. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../drivers/disk.js';
import { pieceBytes } from '../conformance/pattern.js';
import { type DiskAbilities, type DiskFactory, diskSuite } from '../conformance/suite.js';
import { Ceph, whyNoCeph } from './rbd/ceph.js';
import { openRbd } from './rbd/open.js';

t.setTimeout(300_000);

const ABILITIES: DiskAbilities = { maxSizeBytes: 2 ** 40, holes: true, shrink: false };

let cluster: Ceph | null = null;
let count = 0;
async function theCluster(): Promise<Ceph> {
  cluster ??= await Ceph.start(join(tmpdir(), 'ceph'));
  return cluster;
}
t.teardown(() => cluster?.stop());

interface Kind {
  readonly name: string;
  readonly abilities: DiskAbilities;
  /** of `rbd create` */
  readonly words: readonly string[];
}

const KINDS: readonly Kind[] = [
  { name: 'objects of 1 MiB', abilities: ABILITIES, words: ['--object-size', '1M'] },
  {
    name: 'objects of 64 KiB in stripes, without a table of objects',
    abilities: { ...ABILITIES, maxSizeBytes: 2 ** 36, holes: false },
    words: ['--object-size', '64K', '--stripe-unit', '4K', '--stripe-count', '3', '--image-feature', 'exclusive-lock'],
  },
];

function factory({ words }: Kind): DiskFactory {
  return async ({ size, pieces, readOnly }) => {
    const ceph = await theCluster();
    const name = `disk${++count}`;
    const features = words.includes('--image-feature')
      ? []
      : ['--image-feature', 'exclusive-lock,object-map,fast-diff'];
    await ceph.rbd('create', name, '--size', `${size}B`, ...words, ...features);
    const options = { uri: `rbd:${name}`, conf: ceph.conf };
    if (pieces.length > 0) {
      const disk = frontDisk(await openRbd(options), { readOnly: false });
      for (const piece of pieces) await disk.write(pieceBytes(piece), piece.offset);
      await disk.close();
    }
    return {
      raw: await openRbd(options, { readOnly }),
      reopen: () => openRbd(options, { readOnly }),
      // removing it would take longer than the test
      dispose: async () => {},
    };
  };
}

const skip = whyNoCeph();
if (skip !== false) t.test('the suite over a cluster', { skip }, async () => {});
else
  for (const kind of KINDS) {
    diskSuite({ name: kind.name, test: t, factory: factory(kind), abilities: kind.abilities, runs: 2 });
  }
