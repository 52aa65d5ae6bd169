/** Overlays over bases of each kind, to put under test with commits. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkImage } from '../../../drivers/qcow2/check.js';
import { repairImage } from '../../../drivers/qcow2/repair.js';
import { patternBytes } from '../../conformance/pattern.js';
import { io } from '../../drivers/qcow2/overlay.js';
import { qemuImg } from '../../drivers/qemu.js';
import { Life } from '../life.js';
import type { Situation } from '../situations.js';
import { SparseBytes } from '../sparse-bytes.js';
import type { Judge, Subject } from '../subject.js';
import { copyFiles } from '../tape.js';
import { committing } from './committing.js';
import { contentOf, judgeByChecker } from './judges.js';

interface Recipe {
  readonly cluster: number;
  readonly size: number;
  readonly options?: string;
  readonly base: { readonly format: 'raw' | 'qcow2'; readonly size: number; readonly options?: string };
  /** commands of qemu-io for the overlay */
  readonly writes: readonly string[];
}

const KIB = 1024;
const SMALL = { cluster: 512, size: 80 * KIB, writes: ['write -P 1 1k 5k', 'write -z 3k 1k', 'write -P 2 33k 2k'] };

const RECIPES = {
  'over a raw image': { ...SMALL, base: { format: 'raw', size: 80 * KIB } },
  'over a raw image that is shorter': { ...SMALL, base: { format: 'raw', size: 20 * KIB + 100 } },
  'over qcow2 with larger clusters': {
    ...SMALL,
    base: { format: 'qcow2', size: 80 * KIB, options: 'cluster_size=4k' },
  },
  'over qcow2 with extended L2': {
    ...{ cluster: 16 * KIB, size: 330 * KIB, options: 'extended_l2=on' },
    base: { format: 'qcow2', size: 330 * KIB, options: 'cluster_size=16k,extended_l2=on' },
    writes: ['write -P 1 17k 3k', 'write -z 33k 2k', 'write -P 1 100k 40k'],
  },
  'with compressed clusters': {
    ...{ cluster: 4 * KIB, size: 400 * KIB },
    base: { format: 'raw', size: 400 * KIB },
    writes: ['write -c -P 1 0 4k', 'write -c -P 2 4k 4k', 'write -c -P 3 32k 4k'],
  },
} satisfies Record<string, Recipe>;

export type OverlayKind = keyof typeof RECIPES;
export const OVERLAY_KINDS = Object.keys(RECIPES) as OverlayKind[];

/** Makes an overlay in an empty directory. */
export async function overlaySubject(kind: OverlayKind, directory: string): Promise<Subject> {
  const { cluster, size, options, base, writes }: Recipe = RECIPES[kind];
  const [raw, path] = [join(directory, 'below.raw'), join(directory, 'overlay.qcow2')];
  await writeFile(raw, patternBytes(0, base.size, 99));
  const below = base.format === 'raw' ? raw : join(directory, 'base.qcow2');
  if (base.format === 'qcow2') {
    // half of the base is below it
    const over = ['-F', 'raw', '-b', raw];
    qemuImg('create', '-q', '-f', 'qcow2', '-o', base.options ?? '', ...over, below, String(base.size));
    io(below, ['write -P 7 0 8k', 'write -P 8 34k 4k']);
  }
  const made = [`cluster_size=${cluster}`, ...(options === undefined ? [] : [options])].join(',');
  qemuImg('create', '-q', '-f', 'qcow2', '-o', made, '-F', base.format, '-b', below, path, String(size));
  io(path, writes);
  const lowest = base.format === 'raw' ? null : await SparseBytes.load(raw);
  return {
    name: `an overlay ${kind}`,
    driver: committing(base.format, lowest),
    files: { file: await SparseBytes.load(path), base: await SparseBytes.load(below) },
    content: await contentOf(path, directory),
    unitBytes: cluster,
    tableBytes: (cluster / (made.includes('extended_l2') ? 16 : 8)) * cluster,
    maybeZeros: true,
    judge: base.format === 'raw' ? judgeByChecker({ mayLeak: false }) : judgeBoth,
  };
}

/** A kill during a commit leaves the base marked as dirty, until the next commit repairs it: it must be possible. */
const judgeBoth: Judge = async (files, past) => {
  const faults = [...(await judgeByChecker({ mayLeak: false })(files, past))];
  const image = new Life({ files: copyFiles(files) }).disk('base', { readOnly: false });
  const { signal } = new AbortController();
  await repairImage({ disks: { file: image }, signal, progress: () => {} });
  const { corruptions, leaks, isDirty } = await checkImage(image);
  faults.push(...corruptions.map((fault) => `the base: ${fault}`));
  if (leaks.clusters > 0 || isDirty) faults.push(`the base: ${leaks.clusters} clusters leak after a repair`);
  return faults;
};

/** Requests, and commits before, during and after them. */
export const COMMITS: readonly Situation[] = [
  { name: 'a commit', run: (client) => client.commit() },
  {
    name: 'commits between writes',
    async run(client, { unitBytes: unit }) {
      await client.write(unit - 100, 3 * unit, 1);
      await client.commit();
      await client.write(2 * unit, unit, 2);
      await client.zero(4 * unit, 2 * unit);
      await client.commit();
      await client.flush();
    },
  },
  {
    name: 'a commit during writes',
    async run(client, { unitBytes: unit }) {
      await client.write(0, 4 * unit, 1);
      await client.write(13 * unit, 3 * unit, 5);
      await Promise.all([
        client.commit(),
        client.write(unit + 10, unit, 2),
        client.write(9 * unit, 700, 3),
        client.zero(2 * unit, unit),
        client.read(12 * unit, 5 * unit),
        client.flush(),
      ]);
      await client.write(unit, unit, 4);
    },
  },
  {
    name: 'all of the disk',
    async run(client, { size, unitBytes: unit }) {
      await client.write(0, size, 1);
      await client.commit();
      await client.zero(unit, size - 2 * unit);
      await client.commit();
      await client.write(3 * unit, unit, 2);
    },
  },
];
