/**
 * Disks of trees over real files, for drivers that read a format: the tree names the main file, and what the images need
 * is looked up beside the file that names it, as fusetap's keeper does.
 */
import { type FileHandle, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, RawDisk } from '../../drivers/driver.js';
import { wrapDisk } from '../../drivers/filters/wrap-disk.js';
import { findNeeds, type NodeNeed, type OpenedGraph, openGraph, repairNode } from '../../drivers/graph/open-graph.js';
import { planGraph } from '../../drivers/graph/plan.js';
import { filesOf, mainFile, type NodeSpec, nodeAt, pathOf, simpleGraph, withBelow } from '../../drivers/graph.js';
import { segmentsDisk } from '../../drivers/segments/segments.js';
import { type Piece, pieceBytes } from '../conformance/pattern.js';
import type { DiskFactory, DiskRequest } from '../conformance/suite.js';

export interface OpenedTree extends OpenedGraph {
  /** closes the files */
  close(): Promise<void>;
}

/** Opens the files of a tree, also those that its images need, and repairs them if they are open for writing. @throws errors of the drivers; NOT_FOUND */
export async function openTree(graph: NodeSpec, readOnly: boolean): Promise<OpenedTree> {
  const handles: FileHandle[] = [];
  const files: Record<string, ImageFile> = {};
  const absent: string[] = [];
  const close = async (): Promise<void> => void (await Promise.all(handles.map((handle) => handle.close())));
  let tree = graph;
  try {
    for (;;) {
      const { repair = [] } = await planGraph(tree);
      for (const [path, file] of filesOf(tree)) files[path] ??= await openImage(file, readOnly, handles);
      const opened = { graph: tree, files, memories: {}, readOnly, absent };
      const needs = await findNeeds(opened);
      if (needs.length === 0) return { ...opened, repaired: await repaired(opened, repair), close };
      for (const need of needs) {
        const path = besideMain(tree, need);
        const exists = await stat(path).catch(() => null);
        if (exists === null && need.isOptional) absent.push(pathOf(need.node, need.role));
        else tree = withBelow(tree, need.node, need.role, simpleGraph(need.driver, path));
      }
    }
  } catch (error) {
    await close();
    throw error;
  }
}

async function repaired(opened: OpenedGraph, nodes: readonly string[]): Promise<string[]> {
  const done: string[] = [];
  if (opened.readOnly) return done;
  for (const node of [...nodes].sort((a, b) => b.length - a.length)) {
    const { signal } = new AbortController();
    await repairNode({ ...opened, repaired: done }, node, { path: '', signal, progress: () => {} });
    done.push(node);
  }
  return done;
}

function besideMain(tree: NodeSpec, { node, name }: NodeNeed): string {
  const main = mainFile(nodeAt(tree, node));
  const file = main === null ? undefined : filesOf(tree).get(pathOf(node, main));
  return resolve(dirname(file ?? '/'), name);
}

async function openImage(path: string, readOnly: boolean, handles: FileHandle[]): Promise<ImageFile> {
  const handle = await open(path, readOnly ? 'r' : 'r+');
  handles.push(handle);
  return { fd: handle.fd, path, sizeBytes: (await handle.stat()).size, kind: 'file' };
}

/** The disk of a tree; its `close` closes the files too. */
export async function openTreeDisk(graph: NodeSpec, readOnly: boolean): Promise<RawDisk> {
  const tree = await openTree(graph, readOnly);
  try {
    const raw = await openGraph(tree);
    return wrapDisk(raw, { close: () => raw.close().finally(() => tree.close()) });
  } catch (error) {
    await tree.close();
    throw error;
  }
}

/** The front of the disk of a driver over one file. */
export async function openImageDisk(driver: string, file: string, readOnly = false): Promise<Disk> {
  const raw = await openTreeDisk({ driver, options: {}, on: { file: { file } } }, readOnly);
  return frontDisk(raw, { readOnly });
}

/** Serves the segments of a disk without its driver, as threads do. */
export function bySegments(raw: RawDisk): RawDisk {
  if (raw.segments === undefined) throw new TypeError('the disk has no segments');
  return segmentsDisk(raw.segments, () => raw.close());
}

/** Bytes of the disk from `offset` on are in a file from `start` on. */
export interface Run {
  readonly path: string;
  readonly offset: number;
  readonly start: number;
  readonly size: number;
}

/** An image that a test made. */
export interface Built {
  readonly graph: NodeSpec;
  /** where the bytes of the disk must be; the factory writes the pieces there */
  readonly runs: readonly Run[];
  /** replaces the opened disk; default: the disk itself */
  readonly wrap?: (raw: RawDisk) => RawDisk;
}

/** Makes an image of zeros in a directory: the files have their sizes and headers. */
export type Builder = (size: number, directory: string) => Promise<Built>;

export interface GraphFactoryOptions {
  /** replaces the opened disk: another way to serve it */
  readonly wrap?: (raw: RawDisk) => RawDisk;
}

export function graphFactory(build: Builder, { wrap = (raw) => raw }: GraphFactoryOptions = {}): DiskFactory {
  return async ({ size, pieces, readOnly }: DiskRequest) => {
    const directory = await mkdtemp(join(tmpdir(), 'graph-'));
    const dispose = (): Promise<void> => rm(directory, { recursive: true });
    try {
      const built = await build(size, directory);
      await writePieces(built.runs, pieces);
      const reopen = async (): Promise<RawDisk> => {
        const raw = await openTreeDisk(built.graph, readOnly);
        return wrap(built.wrap?.(raw) ?? raw);
      };
      const [only, second] = built.runs;
      const canShrink = only !== undefined && second === undefined;
      const shrink = (bytes: number): Promise<void> => truncateFile((only as Run).path, (only as Run).start + bytes);
      return { raw: await reopen(), reopen, ...(canShrink && { shrink }), dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };
}

/** Writes parts of a disk to where they are in files. */
export async function writePieces(runs: readonly Run[], pieces: readonly Piece[]): Promise<void> {
  for (const { path, offset, start, size } of runs) {
    const file = await open(path, 'r+');
    for (const piece of pieces) {
      const from = Math.max(offset, piece.offset);
      const to = Math.min(offset + size, piece.offset + piece.length);
      if (to <= from) continue;
      const bytes = pieceBytes(piece).subarray(from - piece.offset, to - piece.offset);
      await file.write(bytes, 0, bytes.length, start + from - offset);
    }
    await file.close();
  }
}

/** Makes a sparse file of a size, with bytes at places. */
export async function makeFile(
  path: string,
  size: number,
  ...parts: [at: number, bytes: Uint8Array][]
): Promise<string> {
  const file = await open(path, 'wx+');
  await file.truncate(size);
  for (const [at, bytes] of parts) await file.write(bytes, 0, bytes.length, at);
  await file.close();
  return path;
}

async function truncateFile(path: string, size: number): Promise<void> {
  const file = await open(path, 'r+');
  await file.truncate(size);
  await file.close();
}
