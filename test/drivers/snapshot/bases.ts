/** Bases for snapshots: disks of all kinds with the same bytes. Each says at its end whether anything has changed it. */
import assert from 'node:assert/strict';
import { closeSync, fstatSync, ftruncateSync, readSync, statSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { OpenContext, RawDisk, Segment } from '../../../drivers/driver.js';
import { narrow } from '../../../drivers/filters/narrow.js';
import { cutSegments, segmentsDisk } from '../../../drivers/segments/segments.js';
import snapshot, { type SnapshotState } from '../../../drivers/snapshot/index.js';
import { memfdCreate } from '../../../system/libc.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { asDisk, makeImage } from '../../conformance/driver-factory.js';
import { patternBytes, pieceBytes } from '../../conformance/pattern.js';
import type { DiskFactory, DiskRequest } from '../../conformance/suite.js';
import { makeFile, openImageDisk, openTreeDisk, writePieces } from '../graph-factory.js';
import { qemuImg } from '../qemu.js';

export interface Base {
  readonly disk: Disk;
  /** @throws AssertionError if the base has changed */
  check(): void;
  dispose(): Promise<void>;
}

export type MakeBase = (request: Pick<DiskRequest, 'size' | 'pieces'>) => Promise<Base>;

/** A file that is open for reading only. */
export const inFile: MakeBase = async ({ size, pieces }) => {
  const made = await makeImage({ size, pieces, readOnly: true });
  const before = fstatSync(made.image.fd, { bigint: true });
  const disk = await asDisk(made.image);
  return {
    disk,
    check() {
      const { mtimeNs, ctimeNs, blocks } = fstatSync(made.image.fd, { bigint: true });
      assert.deepEqual({ mtimeNs, ctimeNs, blocks }, { ...pick(before) }, 'the times and the blocks of the base');
      for (const piece of pieces.slice(-1)) {
        const bytes = Buffer.alloc(piece.length);
        readSync(made.image.fd, bytes, 0, piece.length, piece.offset);
        assert.ok(bytes.equals(pieceBytes(piece)), 'the bytes of the base');
      }
    },
    async dispose() {
      await disk.close();
      await made.dispose();
    },
  };
};

function pick({ mtimeNs, ctimeNs, blocks }: { mtimeNs: bigint; ctimeNs: bigint; blocks: bigint }) {
  return { mtimeNs, ctimeNs, blocks };
}

/** Runs of odd sizes in three files, whose places there are not in the order of the disk. @param runs how many */
export function inSegments(runs: number): MakeBase {
  return async ({ size, pieces }) => {
    const fds = [0, 1, 2].map(() => memfdCreate('base'));
    const used = fds.map(() => 513);
    const segments: Segment[] = [];
    let offset = 0;
    for (let i = 1; i <= runs; i++) {
      const end = i === runs ? size : Math.min(size, Math.floor((size * i) / runs) + ((i * 37) % 100));
      if (end <= offset) continue;
      const file = (i * 7) % 3;
      const start = used[file] as number;
      used[file] = start + (end - offset) + 1000;
      const common = { kind: i % 2 ? 'file' : 'memory', readOnly: false, durable: false } as const;
      segments.push({ offset, fd: fds[file] as number, start, size: end - offset, ...common });
      offset = end;
    }
    for (const [i, fd] of fds.entries()) ftruncateSync(fd, used[i] as number);
    for (const piece of pieces) {
      for (const part of cutSegments(segments, piece.offset, piece.length)) {
        const { seed, place = piece.offset } = piece;
        writeSync(part.fd, patternBytes(place + part.offset, part.size, seed), 0, part.size, part.start);
      }
    }
    const before = fds.map((fd) => pick(fstatSync(fd, { bigint: true })));
    const disk = frontDisk(
      segmentsDisk(segments, async () => {}),
      { readOnly: true },
    );
    return {
      disk,
      // reading pages of a memfd that are holes does not fill them
      check: () =>
        assert.deepEqual(
          fds.map((fd) => pick(fstatSync(fd, { bigint: true }))),
          before,
        ),
      async dispose() {
        await disk.close();
        for (const fd of fds) closeSync(fd);
      },
    };
  };
}

/** A chain of qcow2 over a raw image, with clusters of its own for some of the bytes. */
export const inQcow2: MakeBase = async ({ size, pieces }) => {
  const directory = await mkdtemp(join(tmpdir(), 'base-'));
  // a disk of qcow2 is whole sectors
  const bytes = Math.ceil(size / 512) * 512;
  const raw = await makeFile(join(directory, 'base.img'), bytes);
  await writePieces([{ path: raw, offset: 0, start: 0, size: bytes }], pieces);
  const files = ['1.qcow2', '2.qcow2'].map((name) => join(directory, name));
  for (const [i, file] of files.entries()) {
    const below = files[i - 1] ?? raw;
    const options = i === 0 ? 'cluster_size=4k' : 'cluster_size=64k,extended_l2=on';
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, '-F', i === 0 ? 'raw' : 'qcow2', '-b', basename(below), file);
    const own = await openImageDisk('qcow2', file);
    for (const piece of pieces.filter((_, index) => index % 3 === i)) {
      // the same bytes, but in the upper image
      const half = Buffer.alloc(Math.ceil(piece.length / 2));
      await own.read(half, piece.offset);
      await own.write(half, piece.offset);
    }
    await own.close();
  }
  const before = [raw, ...files].map((file) => pick(statSync(file, { bigint: true })));
  const graph = { driver: 'qcow2', options: {}, on: { file: { file: files[1] as string } } };
  const disk = frontDisk(narrow(await openTreeDisk(graph, true), 0, size), { readOnly: true });
  return {
    disk,
    check: () =>
      assert.deepEqual(
        [raw, ...files].map((file) => pick(statSync(file, { bigint: true }))),
        before,
      ),
    async dispose() {
      await disk.close();
      await rm(directory, { recursive: true });
    },
  };
};

/** A disk that no thread can serve. */
export const inBuffer: MakeBase = async ({ size, pieces }) => {
  const bytes = Buffer.alloc(size);
  for (const piece of pieces) pieceBytes(piece).copy(bytes, piece.offset);
  const before = Buffer.from(bytes);
  const disk = frontDisk(bufferDisk(bytes), { readOnly: true });
  return { disk, check: () => assert.ok(bytes.equals(before)), dispose: () => disk.close() };
};

/** Makes the memory of a snapshot. */
export async function prepareOver(base: Disk, fd: number): Promise<SnapshotState> {
  const { signal } = new AbortController();
  const given = { files: {}, disks: { file: base }, memory: { fd }, options: {} };
  return await snapshot.prepare({ ...given, path: '', signal, progress: () => {} });
}

export function contextOver(base: Disk, fd: number, state: SnapshotState): OpenContext<SnapshotState> {
  return { files: {}, disks: { file: base }, memory: { fd }, state, readOnly: false, isRepaired: true, options: {} };
}

/** Snapshots over a base that has the bytes of the request. */
export function snapshotOver(makeBase: MakeBase, wrap: (raw: RawDisk) => RawDisk = (raw) => raw): DiskFactory {
  return async (request) => {
    const base = await makeBase(request);
    const fd = memfdCreate('snapshot');
    const state = await prepareOver(base.disk, fd);
    const context = { ...contextOver(base.disk, fd, state), readOnly: request.readOnly };
    const reopen = async (): Promise<RawDisk> => wrap(await snapshot.open(context));
    return {
      raw: await reopen(),
      reopen,
      async dispose() {
        closeSync(fd);
        try {
          base.check();
        } finally {
          await base.dispose();
        }
      },
    };
  };
}
