/** The images of scripts/kill-each, as files and in memory. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { loadDriver } from '../../../drivers/registry.js';
import { patternBytes } from '../../../test/conformance/pattern.js';
import { type JudgedSubject, QCOW2_KINDS, qcow2Subject } from '../../../test/crash/qcow2/subjects.js';
import { SparseBytes } from '../../../test/crash/sparse-bytes.js';
import { fileOf } from '../../../test/crash/tape.js';

export const DRIVERS = ['qcow2', 'aio', 'sync', 'snapshot'] as const;
export type KillDriver = (typeof DRIVERS)[number];

const RAW_BYTES = 100_000;

export interface KillImage extends JudgedSubject {
  readonly driver: KillDriver;
  readonly path: string;
  /** the image keeps what is written to the disk */
  readonly isKept: boolean;
  /** Writes the files as they were at first. */
  restore(): Promise<void>;
  /** Reads what the files have now. */
  load(): Promise<Readonly<Record<string, SparseBytes>>>;
}

export async function makeImages(driver: KillDriver, only: string, directory: string): Promise<KillImage[]> {
  const images: KillImage[] = [];
  if (driver !== 'qcow2') return [await rawImage(driver, directory)];
  for (const [index, kind] of QCOW2_KINDS.filter((name) => name.includes(only)).entries()) {
    const own = join(directory, `${index}`);
    await mkdir(own);
    images.push(fileImage(driver, await qcow2Subject(kind, own), own));
  }
  return images;
}

/** An image whose files are in a directory. */
function fileImage(driver: KillDriver, judged: JudgedSubject, directory: string): KillImage {
  const { files } = judged.subject;
  const paths = { file: join(directory, 'disk.qcow2'), data: join(directory, 'data.raw') };
  const written = (['file', 'data'] as const).filter((role) => files[role] !== undefined);
  return {
    ...judged,
    ...{ driver, path: paths.file, isKept: true },
    async restore() {
      for (const role of written) await fileOf(files, role).save(paths[role]);
    },
    async load() {
      const loaded = await Promise.all(
        written.map(async (role) => [role, await SparseBytes.load(paths[role])] as const),
      );
      return { ...files, ...Object.fromEntries(loaded) };
    },
  };
}

async function rawImage(driver: KillDriver, directory: string): Promise<KillImage> {
  const file = SparseBytes.from(patternBytes(0, RAW_BYTES, 98));
  const path = join(directory, 'disk.img');
  const subject = {
    ...{ name: driver, driver: await loadDriver(driver), files: { file }, content: file },
    ...{ unitBytes: 4096, tableBytes: 32_768, judge: async () => [] },
  };
  return {
    ...{ subject, byQemu: async () => [], driver, path },
    isKept: driver !== 'snapshot',
    restore: () => file.save(path),
    load: async () => ({ file: await SparseBytes.load(path) }),
  };
}
