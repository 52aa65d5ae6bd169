/** Commits of qcow2 overlays: against `qemu-img commit`, while clients write, and what is refused. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { RawDisk } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { Random } from '../../../scripts/lib/torture/second-faults/random.js';
import { byMap, type Served } from '../../conformance/by-map.js';
import { patternBytes } from '../../conformance/pattern.js';
import { makeFile } from '../graph-factory.js';
import { qemuImg, whyNoQemu } from '../qemu.js';
import {
  type ChainShape,
  commit,
  commitOverlay,
  contentOf,
  copyChain,
  inDirectory,
  KIB,
  MIB,
  makeChain,
  openOverlay,
} from './overlay.js';
import { qemuCheck } from './qemu-images.js';

const skip = whyNoQemu();
t.setTimeout(300_000);

const WRITES = [
  'write -P 1 0 1000',
  'write -P 2 100k 3M',
  'write -z 4M 300k',
  'discard 5M 128k',
  'write -P 3 6M 70k',
  'write -c -P 4 7M 128k',
  'write -c -P 5 8256k 64k',
  'write -P 6 12345k 1536',
];
/** an image with a data file cannot have compressed clusters */
const PLAIN = WRITES.filter((write) => !write.includes('-c'));
/** compressed clusters must be whole */
const LARGE = [...PLAIN, 'write -c -P 4 8M 4M'];

const SHAPES: Readonly<Record<string, ChainShape>> = {
  'over a raw image': { size: 16 * MIB, writes: WRITES },
  'over a raw image that is shorter': { size: 16 * MIB, baseSize: 5 * MIB + 1000, writes: WRITES },
  'over a raw image that is longer': { size: 16 * MIB, baseSize: 20 * MIB, writes: WRITES },
  'over qcow2': { size: 16 * MIB, baseOptions: 'compat=1.1', writes: WRITES },
  'over qcow2 with larger clusters': {
    size: 16 * MIB,
    baseOptions: 'cluster_size=1M',
    options: 'cluster_size=4k',
    writes: WRITES,
  },
  'over qcow2 with smaller clusters': {
    size: 16 * MIB,
    baseOptions: 'cluster_size=512',
    options: 'cluster_size=2M',
    writes: LARGE,
  },
  'into the middle of a chain': { size: 16 * MIB, baseOptions: 'compat=1.1', hasBelow: true, writes: WRITES },
  'with extended L2': { size: 16 * MIB, options: 'extended_l2=on,cluster_size=64k', writes: WRITES },
  'with extended L2, over extended L2': {
    size: 16 * MIB,
    baseOptions: 'extended_l2=on,cluster_size=128k',
    hasBelow: true,
    options: 'extended_l2=on,cluster_size=16k',
    writes: WRITES,
  },
  'with extended L2 and places for all': {
    size: 16 * MIB,
    options: 'extended_l2=on,preallocation=metadata',
    writes: PLAIN,
  },
  'with zstd': { size: 16 * MIB, options: 'compression_type=zstd,cluster_size=32k', writes: WRITES },
  'with refcounts of 1 bit': { size: 16 * MIB, options: 'refcount_bits=1', writes: PLAIN },
  'with a data file': { size: 16 * MIB, options: 'data_file=data.img', writes: PLAIN },
  'with clusters of 128 KiB': { size: 16 * MIB, options: 'cluster_size=128k', writes: LARGE },
  'with many tables': {
    size: 64 * MIB,
    baseOptions: 'cluster_size=512',
    options: 'cluster_size=512',
    writes: [...WRITES, 'write -P 9 31M 2M', 'write -P 8 63M 1M'],
  },
  'that is empty': { size: 16 * MIB, writes: [] },
};

for (const [name, shape] of Object.entries(SHAPES)) {
  t.test(`an overlay ${name} is committed as QEMU commits it`, { skip }, async (t) => {
    const directory = t.testdir({ ours: {} });
    const ours = await makeChain(join(directory, 'ours'), shape);
    const theirs = await copyChain(ours, join(directory, 'ours'), join(directory, 'theirs'));
    const before = join(directory, 'before.img');
    inDirectory(join(directory, 'ours'), () => qemuImg('convert', '-f', 'qcow2', '-O', 'raw', ours.overlay, before));

    await commitOverlay(ours.overlay);
    inDirectory(join(directory, 'theirs'), () => qemuImg('commit', '-q', '-f', 'qcow2', theirs.overlay));

    const { baseFormat: format } = ours;
    qemuImg('compare', '-f', format, '-F', format, ours.base, theirs.base);
    inDirectory(join(directory, 'ours'), () => {
      t.match(qemuImg('compare', '-f', 'raw', '-F', 'qcow2', before, ours.overlay), /identical/);
    });
    const { size, baseSize = size } = shape;
    if (baseSize <= size) t.match(qemuImg('compare', '-f', 'raw', '-F', format, before, ours.base), /identical/);
    inDirectory(join(directory, 'ours'), () => {
      const { status, clusters } = qemuCheck(ours.overlay);
      // places that never had data stay
      const allocated = shape.options?.includes('preallocation') ? clusters.allocated : 0;
      t.match({ status, clusters }, { status: 0, clusters: { allocated, compressed: 0 } });
    });
    if (format === 'qcow2') t.equal(qemuCheck(ours.base).status, 0);
  });
}

t.test('a commit frees the space of the overlay', { skip }, async (t) => {
  const { overlay } = await makeChain(t.testdir(), { size: 64 * MIB, writes: ['write -P 1 0 40M'] });
  t.ok((await stat(overlay)).blocks * 512 > 40 * MIB);
  await commitOverlay(overlay);
  t.ok((await stat(overlay)).blocks * 512 < MIB);
});

t.test('the progress of a commit ends with all its bytes', { skip }, async (t) => {
  const { overlay } = await makeChain(t.testdir(), { size: 16 * MIB, writes: WRITES });
  const disk = frontDisk(await openOverlay(overlay), { readOnly: false });
  const [done, total] = await commit(disk);
  t.equal(done, total);
  t.ok(total >= 3 * MIB + 300 * KIB && total < 6 * MIB, String(total));
  t.same(await commit(disk), [0, 0], 'a second commit has nothing to move');
  await disk.close();
});

/** A client of a part of the disk: what it reads is what it wrote last. */
class Worker {
  readonly #disk: Disk;
  readonly #content: Buffer;
  readonly #random: Random;
  readonly #from: number;
  readonly #to: number;

  constructor(disk: Disk, content: Buffer, random: Random, [from, to]: readonly [number, number]) {
    this.#disk = disk;
    this.#content = content;
    this.#random = random;
    this.#from = from;
    this.#to = to;
  }

  async workUntil(isOver: () => boolean): Promise<void> {
    for (let step = 0; !isOver() || step < 20; step++) await this.#step(step);
  }

  async #step(step: number): Promise<void> {
    const random = this.#random;
    const length = random.pick([512, 4096, 70_000, 200_000]);
    const at = this.#from + random.below(this.#to - this.#from - length);
    const mine = this.#content.subarray(at, at + length);
    switch (random.below(8)) {
      case 0:
        await this.#disk.zero(at, length, { punch: random.isOneIn(2) });
        mine.fill(0);
        return;
      case 1:
        return await this.#disk.flush();
      case 2:
      case 3:
        patternBytes(at, length, step % 250).copy(mine);
        await this.#disk.write(mine, at);
        return;
      default: {
        const bytes = Buffer.alloc(length);
        await this.#disk.read(bytes, at);
        if (!bytes.equals(mine)) throw new Error(`step ${step}: other bytes at ${at}+${length}`);
      }
    }
  }
}

for (const [name, shape] of Object.entries({
  'over a raw image': { size: 48 * MIB, writes: [...WRITES, 'write -P 7 16M 30M'] },
  'in the middle of a chain': {
    size: 48 * MIB,
    options: 'extended_l2=on',
    baseOptions: 'cluster_size=1M',
    hasBelow: true,
    writes: [...WRITES, 'write -P 7 16M 30M'],
  },
} satisfies Record<string, ChainShape>)) {
  for (const isByMap of [false, true]) {
    const how = isByMap ? 'by its map' : 'by its driver';
    t.test(`clients of an overlay ${name}, served ${how}, see the same bytes during commits`, { skip }, async (t) => {
      const seed = Number(process.env.FUSETAP_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
      t.comment(`seed ${seed}`);
      const random = new Random(seed);
      const { overlay, base } = await makeChain(t.testdir(), shape);
      const counts: Served = { byMap: 0, byDriver: 0 };
      const raw = await openOverlay(overlay);
      const served = isByMap ? byMap(raw, counts) : raw;
      const disk = frontDisk(served, { readOnly: false });
      const content = await contentOf(disk);
      let isOver = false;
      const parts = Array.from({ length: 6 }, (_, i): [number, number] => [i * 8 * MIB, (i + 1) * 8 * MIB]);
      const workers = parts.map((part) => new Worker(disk, content, random, part).workUntil(() => isOver));
      const committing = (async () => {
        for (let i = 0; i < 4; i++) await commit(disk);
        isOver = true;
      })();
      await Promise.all([committing, ...workers]);
      t.ok((await contentOf(disk)).equals(content));
      if (isByMap) t.ok(counts.byMap > 0, `${counts.byMap} requests by the map, ${counts.byDriver} by the driver`);
      await commit(disk);
      await disk.close();
      const expected = await makeFile(join(t.testdirName, 'expected.img'), content.length, [0, content]);
      for (const [format, image] of [['qcow2', overlay] as const, [formatOf(base), base] as const]) {
        t.match(qemuImg('compare', '-f', 'raw', '-F', format, expected, image), /identical/, image);
      }
      t.match(qemuCheck(overlay), { status: 0, clusters: { allocated: 0 } });
    });
  }
}

function formatOf(base: string): 'raw' | 'qcow2' {
  return base.endsWith('raw') ? 'raw' : 'qcow2';
}

t.test('a read that began before a commit sees the bytes, however long it takes', { skip }, async (t) => {
  const { overlay } = await makeChain(t.testdir(), { size: 4 * MIB, writes: ['write -P 1 0 1M'] });
  let [isSlow, begun, go] = [false, (): void => {}, (): void => {}];
  const hasBegun = new Promise<void>((resolve) => (begun = resolve));
  const mayGo = new Promise<void>((resolve) => (go = resolve));
  const changeImage = (image: RawDisk): Partial<RawDisk> => ({
    read: async (buffer, offset) => {
      if (isSlow) {
        isSlow = false;
        begun();
        await mayGo;
      }
      await image.read(buffer, offset);
    },
  });
  const disk = frontDisk(await openOverlay(overlay, { changeImage }), { readOnly: false });
  // the tables are in memory then
  await disk.read(Buffer.alloc(512), 0);
  isSlow = true;
  const bytes = Buffer.alloc(64 * KIB);
  const reading = disk.read(bytes, 64 * KIB);
  await hasBegun;
  const committing = commit(disk);
  await Promise.race([committing, setTimeout(500)]);
  go();
  await reading;
  t.ok(bytes.every((byte) => byte === 1));
  await committing;
  t.equal((await contentOf(disk))[64 * KIB], 1);
  await disk.close();
});

/** An overlay whose base fails in one way. */
async function failing(overlay: string, change: (base: RawDisk) => Partial<RawDisk>): Promise<Disk> {
  return frontDisk(await openOverlay(overlay, { change }), { readOnly: false });
}

for (const [what, change] of Object.entries({
  'a write fails': (base: RawDisk) => {
    let writes = 0;
    return {
      write: async (...args: Parameters<NonNullable<RawDisk['write']>>) => {
        if (++writes > 2) throw new FusetapError('NO_SPACE', 'made to fail', { errno: 28 });
        await base.write?.(...args);
      },
    };
  },
  'a flush fails': () => ({
    flush: async () => {
      throw new FusetapError('FAILED', 'made to fail', { errno: 5 });
    },
  }),
  'zeros fail': () => ({
    zero: async () => {
      throw new FusetapError('FAILED', 'made to fail', { errno: 5 });
    },
  }),
})) {
  t.test(`if ${what} in the base, the disk is as before`, { skip }, async (t) => {
    const { overlay, base } = await makeChain(t.testdir(), { size: 16 * MIB, writes: WRITES });
    const disk = await failing(overlay, change);
    const content = await contentOf(disk);
    await t.rejects(commit(disk), { message: /^its base: .*made to fail/, operation: 'commit' });
    t.ok((await contentOf(disk)).equals(content));
    await disk.write(Buffer.alloc(512, 9), 0);
    await disk.close();
    t.equal(qemuCheck(overlay).status, 0);
    await commitOverlay(overlay);
    Buffer.alloc(512, 9).copy(content);
    const expected = await makeFile(join(t.testdirName, 'expected.img'), content.length, [0, content]);
    t.match(qemuImg('compare', '-f', 'raw', '-F', 'raw', expected, base), /identical/);
  });
}

t.test('a commit that is aborted stops, and the rest can be committed later', { skip }, async (t) => {
  const { overlay, base } = await makeChain(t.testdir(), { size: 128 * MIB, writes: ['write -P 1 0 100M'] });
  const disk = frontDisk(await openOverlay(overlay), { readOnly: false });
  const abort = new AbortController();
  const progress = (done: number): void => void (done > 40 * MIB && abort.abort(new Error('enough')));
  await t.rejects(disk.commit({ signal: abort.signal, progress }), { message: /enough/ });
  t.equal((await contentOf(disk)).compare(Buffer.alloc(100 * MIB, 1), 0, 100 * MIB, 0, 100 * MIB), 0);
  await disk.close();
  const { allocated } = qemuCheck(overlay).clusters;
  t.ok(allocated > 0 && allocated < 1600, `${allocated} clusters are left`);
  await commitOverlay(overlay);
  t.equal(qemuCheck(overlay).clusters.allocated, 0);
  t.match(qemuImg('compare', '-f', 'qcow2', '-F', 'raw', overlay, base), /identical/);
});

t.test('a commit is refused', { skip }, async (t) => {
  const refused = async (
    overlay: string,
    error: { message: RegExp } & Record<string, string | RegExp>,
    options?: { writesBase: boolean },
  ): Promise<void> => {
    const disk = frontDisk(await openOverlay(overlay, options), { readOnly: false });
    await t.rejects(commit(disk), error);
    await disk.close();
  };
  await t.test('if the base is open only for reading', async (t) => {
    const { overlay } = await makeChain(t.testdir(), { size: MIB * 4, writes: [] });
    await refused(overlay, { code: 'DENIED', message: /its base can only be read/ }, { writesBase: false });
  });
  await t.test('if the image has internal snapshots', async (t) => {
    const { overlay } = await makeChain(t.testdir(), { size: MIB * 4, writes: ['write 0 64k'] });
    qemuImg('snapshot', '-c', 'monday', overlay);
    await refused(overlay, { code: 'UNSUPPORTED', message: /it has internal snapshots/ });
  });
  await t.test('if the base is shorter and cannot grow', async (t) => {
    const shape = { size: MIB * 8, baseSize: MIB * 4, baseOptions: 'compat=1.1', writes: ['write 7M 64k'] };
    const { overlay } = await makeChain(t.testdir(), shape);
    await refused(overlay, { code: 'UNSUPPORTED', message: /8388608 bytes, but its base has only 4194304/ });
  });
  await t.test('if there is no base', async (t) => {
    const image = join(t.testdir(), 'a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', image, '1M');
    await refused(image, { code: 'UNSUPPORTED', message: /no base/ });
  });
});
