/** Makes disks for the suite from a driver and an image file, opened as fusetap's keeper and server open it. */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import aio from '../../drivers/aio/index.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { Driver, Given, ImageFile, Json, OpenContext, PrepareContext, RawDisk } from '../../drivers/driver.js';
import { type AnyDriver, asDriver } from '../../drivers/image-driver.js';
import { memfdCreate } from '../../system/libc.js';
import { closeFd } from './close-fd.js';
import { pieceBytes } from './pattern.js';
import type { DiskFactory, DiskRequest } from './suite.js';

export interface FactoryOptions {
  /** the directory for image files; default: the system's directory for temporary files */
  readonly directory?: string;
  /** replaces the disk that the driver opened: another way to serve the same disk */
  readonly wrap?: (raw: RawDisk) => RawDisk;
  /** the options of the driver */
  readonly options?: Readonly<Record<string, string>>;
}

/** A factory for a driver over one image. The image is a sparse file; a driver with `prepare` gets a memfd. */
export function driverFactory(anyDriver: AnyDriver, factoryOptions: FactoryOptions = {}): DiskFactory {
  const driver = asDriver(anyDriver);
  const { directory, wrap = (raw) => raw, options = {} } = factoryOptions;
  return async (request) => {
    const made = await makeImage(request, directory);
    const memory = driver.prepare ? { fd: memfdCreate('test') } : null;
    const dispose = async (): Promise<void> => {
      if (memory) await closeFd(memory.fd);
      await made.dispose();
    };
    try {
      const prepared = { ...(await givenFor(driver, made.image)), options };
      const work = { path: made.image.path, signal: new AbortController().signal, progress: () => {} };
      if (!request.readOnly) await driver.repair?.({ ...prepared, ...work });
      const state = memory ? await prepare(driver, { ...prepared, memory, path: made.image.path }) : null;
      const isRepaired = driver.repair === undefined || !request.readOnly;
      const context: OpenContext = { ...prepared, memory, state, readOnly: request.readOnly, isRepaired };
      const reopen = async () => wrap(await driver.open(context));
      return { raw: await reopen(), reopen, shrink: (size) => made.file.truncate(size), dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };
}

/** The image under the role `file`: as it is, or as the disk of aio. */
async function givenFor({ roles }: Driver, image: ImageFile): Promise<Given> {
  const files = { file: image };
  if (roles.file?.takes !== 'disk') return { files, disks: {} };
  return { files: {}, disks: { file: await asDisk(image) } };
}

/** An image as the read-only disk that a driver is given for it. */
export async function asDisk(image: ImageFile): Promise<Disk> {
  const context = {
    files: { file: image },
    disks: {},
    memory: null,
    state: null,
    readOnly: true,
    isRepaired: true,
    options: {},
  };
  return frontDisk(await aio.open(context), { readOnly: true });
}

async function prepare(driver: Driver, given: Omit<PrepareContext, 'signal' | 'progress'>): Promise<Json> {
  const { signal } = new AbortController();
  return (await driver.prepare?.({ ...given, signal, progress: () => {} })) ?? null;
}

export interface MadeImage {
  readonly image: ImageFile;
  /** open for writing, separate from the driver's descriptor */
  readonly file: FileHandle;
  dispose(): Promise<void>;
}

/** A sparse image file in a directory of its own, opened as the request says. */
export async function makeImage({ size, pieces, readOnly }: DiskRequest, directory?: string): Promise<MadeImage> {
  const holder = await mkdtemp(join(directory ?? tmpdir(), 'disk-'));
  const path = join(holder, 'disk.img');
  const file = await open(path, 'wx+');
  await file.truncate(size);
  for (const piece of pieces) await file.write(pieceBytes(piece), 0, piece.length, piece.offset);
  const handed = await open(path, readOnly ? 'r' : 'r+');
  return {
    image: { fd: handed.fd, path, sizeBytes: size, kind: 'file' },
    file,
    async dispose() {
      await handed.close();
      await file.close();
      await rm(holder, { recursive: true });
    },
  };
}
