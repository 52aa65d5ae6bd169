/** Disks for the suite from a driver over an image file, opened as fusetap's keeper and server do. */
import { type FileHandle, open } from 'node:fs/promises';
import { dir } from 'tmp-promise';
import type { Driver, ImageFile, Json, Memory, OpenContext, RawDisk } from '../../drivers/driver.js';
import { memfdCreate } from '../../system/libc.js';
import { closeFd } from './close-fd.js';
import { pieceBytes } from './pattern.js';
import type { DiskFactory, DiskRequest } from './suite.js';

export interface FactoryOptions {
  /** where image files are made; default the system's directory for temporary files */
  readonly directory?: string;
  /** replaces what the driver opened: another way to serve the same disk */
  readonly wrap?: (raw: RawDisk) => RawDisk;
}

/** A factory for a built-in driver. The image is a sparse file; a driver with `prepare` gets a memfd. */
export function driverFactory(driver: Driver, { directory, wrap = (raw) => raw }: FactoryOptions = {}): DiskFactory {
  return async (request) => {
    const made = await makeImage(request, directory);
    const memory = driver.prepare ? { fd: memfdCreate('test') } : null;
    const dispose = async (): Promise<void> => {
      if (memory) await closeFd(memory.fd);
      await made.dispose();
    };
    try {
      const state = memory ? await prepare(driver, made.image, memory) : null;
      const context: OpenContext = { image: made.image, memory, state, readOnly: request.readOnly, options: {} };
      const reopen = async () => wrap(await driver.open(context));
      return { raw: await reopen(), reopen, shrink: (size) => made.file.truncate(size), dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };
}

async function prepare(driver: Driver, image: ImageFile, memory: Memory): Promise<Json> {
  const { signal } = new AbortController();
  return (await driver.prepare?.({ image, memory, options: {}, signal, progress: () => {} })) ?? null;
}

export interface MadeImage {
  readonly image: ImageFile;
  /** open for writing, apart from the descriptor that the driver has */
  readonly file: FileHandle;
  dispose(): Promise<void>;
}

/** A sparse image file in a directory of its own, opened as the request says. */
export async function makeImage({ size, pieces, readOnly }: DiskRequest, directory?: string): Promise<MadeImage> {
  const holder = await dir({ unsafeCleanup: true, ...(directory === undefined ? {} : { tmpdir: directory }) });
  const path = `${holder.path}/disk.img`;
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
      await holder.cleanup();
    },
  };
}
