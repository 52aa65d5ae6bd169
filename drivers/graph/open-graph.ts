/**
 * Opens the disk of a tree, from the leaves up: each driver is given the files and the open disks below it. The server
 * of a bus does this, and a program that opens a disk without a bus.
 */
import { basename } from 'node:path';
import aio from '../aio/index.js';
import { type Disk, frontDisk } from '../disk.js';
import type { Driver, Given, ImageFile, Json, Memory, Need, OpenContext, PrepareContext, RawDisk } from '../driver.js';
import { FusetapError } from '../errors.js';
import { gated } from '../filters/gated.js';
import { wrapDisk } from '../filters/wrap-disk.js';
import { isFile, mainFile, type NodeSpec, nodeAt, pathOf } from '../graph.js';
import { named } from '../quote.js';
import { loadDriver } from '../registry.js';
import { checkDisk } from '../third-party.js';
import { checkComplete, roleOf } from './plan.js';

/** The memory of a node, and what its driver's `prepare` returned. */
export interface NodeMemory {
  readonly memory: Memory;
  readonly state: Json | null;
}

/** A tree and what was opened for it, by paths. */
export interface OpenedGraph {
  readonly graph: NodeSpec;
  readonly files: Readonly<Record<string, ImageFile>>;
  readonly memories: Readonly<Record<string, NodeMemory>>;
  readonly readOnly: boolean;
  /** the nodes that were repaired at this attach, by path; default: none */
  readonly repaired?: readonly string[];
  /** the optional needs whose file does not exist, by path; only for findNeeds; default: none */
  readonly absent?: readonly string[];
  /** the path of a node or file under a role that is only read: it is open for writing all the same; default: none */
  readonly writes?: string;
  /** for a driver with `isRemote`; default: nobody takes the disk over */
  readonly remote?: (node: string) => RemoteContext;
  /** see OpenContext; for the memory of the top */
  readonly mayFill?: OpenContext['mayFill'];
}

/** What a driver of a remote disk is given besides. */
export type RemoteContext = Pick<OpenContext, 'kept' | 'host' | 'isShared'>;

/** A need, and the node that has it. */
export interface NodeNeed extends Need {
  readonly node: string;
}

/**
 * Opens the disk of a node, with all below it; its `close` closes all.
 * @param path of the node; default: the top
 * @throws errors of the drivers; UNSUPPORTED for a disk that breaks the contract. Nothing stays open then
 */
export async function openGraph(opened: OpenedGraph, path = ''): Promise<RawDisk> {
  const node = nodeAt(opened.graph, path);
  const driver = await loadDriver(node.driver);
  const held = opened.memories[path];
  // what a shared memory was copied from is not needed any more
  if (driver.scratch === 'shared' && held !== undefined) return await openNode(driver, opened, path, NOTHING);
  checkComplete(driver, node);
  const below = await openBelow(driver, opened, path);
  try {
    const raw = await openNode(driver, opened, path, below);
    if (Object.keys(below.disks).length === 0) return raw;
    return wrapDisk(raw, { close: () => closeInTurn([raw, ...Object.values(below.disks)]) });
  } catch (error) {
    await closeBelow(below);
    throw error;
  }
}

const NOTHING: Given = { files: {}, disks: {} };

async function openNode(driver: Driver, opened: OpenedGraph, path: string, below: Given): Promise<RawDisk> {
  const { options } = nodeAt(opened.graph, path);
  const { memory = null, state = null } = opened.memories[path] ?? {};
  const { mayFill, readOnly } = opened;
  const isRepaired = driver.repair === undefined || (opened.repaired ?? []).includes(path);
  const remote = driver.isRemote ? opened.remote?.(path) : {};
  const context = { ...below, memory, state, readOnly, isRepaired, options, ...(mayFill && { mayFill }), ...remote };
  const raw = checkDisk(await said(driver, opened, path, () => driver.open(context)), driver.name);
  return raw.activate === undefined ? raw : gated(raw);
}

/** Opens what is below a node. The caller closes its disks. */
async function openBelow(driver: Driver, opened: OpenedGraph, path: string): Promise<Given> {
  const files: Record<string, ImageFile> = {};
  const disks: Record<string, Disk> = {};
  try {
    for (const [name, below] of Object.entries(nodeAt(opened.graph, path).on)) {
      const at = pathOf(path, name);
      const role = roleOf(driver, name);
      const readOnly = opened.readOnly || (role?.access === 'read' && at !== opened.writes);
      if (isFile(below) && role?.takes === 'file') files[name] = fileAt(opened, at);
      else if (isFile(below)) disks[name] = frontDisk(await openFile(fileAt(opened, at), readOnly), { readOnly });
      else {
        const { mayFill: _, ...rest } = opened;
        // only the memory of the top is written: no other has a limit
        const isRead = readOnly || opened.memories[at] !== undefined;
        disks[name] = frontDisk(await openGraph({ ...rest, readOnly: isRead }, at), { readOnly: isRead });
      }
    }
    return { files, disks };
  } catch (error) {
    await closeBelow({ disks });
    throw error;
  }
}

function openFile(file: ImageFile, readOnly: boolean): Promise<RawDisk> {
  return aio.open({ files: { file }, disks: {}, memory: null, state: null, readOnly, isRepaired: true, options: {} });
}

function fileAt({ files }: OpenedGraph, path: string): ImageFile {
  const file = files[path];
  if (file === undefined) throw new FusetapError('FAILED', `the file ${path} of the disk was not opened`);
  return file;
}

async function closeBelow({ disks }: Pick<Given, 'disks'>): Promise<void> {
  await closeInTurn(Object.values(disks)).catch(() => {});
}

/** Closes all, also if one fails. @throws the first error */
async function closeInTurn(disks: readonly Pick<Disk, 'close'>[]): Promise<void> {
  const errors: unknown[] = [];
  for (const disk of disks) await disk.close().catch((error: unknown) => errors.push(error));
  if (errors.length > 0) throw errors[0];
}

/** Calls `work` with the driver of a node and what is below it. */
async function withBelow<Result>(
  opened: OpenedGraph,
  path: string,
  work: (driver: Driver, given: Given, node: NodeSpec) => Promise<Result>,
): Promise<Result> {
  const node = nodeAt(opened.graph, path);
  const driver = await loadDriver(node.driver);
  const below = await openBelow(driver, opened, path);
  try {
    return await work(driver, below, node);
  } finally {
    await closeBelow(below);
  }
}

/**
 * What the images of a tree need and were not given; empty if it can be opened. Nodes above one that needs something
 * are asked later.
 * @throws errors of the drivers: the image is broken
 */
export async function findNeeds(opened: OpenedGraph, path = ''): Promise<NodeNeed[]> {
  const node = nodeAt(opened.graph, path);
  const driver = await loadDriver(node.driver);
  if (driver.scratch === 'shared' && opened.memories[path] !== undefined) return [];
  const nodes = Object.entries(node.on).filter(([, below]) => !isFile(below));
  const below: NodeNeed[] = [];
  for (const [name] of nodes) below.push(...(await findNeeds(opened, pathOf(path, name))));
  if (below.length > 0 || driver.needs === undefined) return below;
  const absent = absentOf(opened, path);
  const needs = await withBelow(forReading(opened), path, async (_, given, { options }) => {
    const context = { ...given, options, name: nameOf(opened, path), absent };
    return (await said(driver, opened, path, async () => driver.needs?.(context))) ?? [];
  });
  const missing = needs.filter(({ role, isOptional }) => {
    return node.on[role] === undefined && !(isOptional && absent.includes(role));
  });
  const unknown = missing.find(({ role }) => roleOf(driver, role) === undefined);
  if (unknown !== undefined)
    throw new RangeError(`driver ${driver.name} needs ${unknown.role}, which it does not take`);
  return missing.map((need) => ({ ...need, node: path }));
}

/** Adds the path of the image to the errors of drivers of formats: they do not know it. */
async function said<Result>(
  { roles, rawImage = false }: Driver,
  opened: OpenedGraph,
  path: string,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    const image = mainOf(opened, path);
    const isFormat = roles.file?.takes === 'disk' && !rawImage;
    if (!isFormat || image === undefined || !(error instanceof FusetapError) || error.path !== undefined) throw error;
    const { code, message, hint, errno, operation, offset } = error;
    const details = { ...{ hint, errno, operation, offset }, path: image.path, cause: error };
    throw new FusetapError(code, `${named(image.path)}: ${message}`, details);
  }
}

function mainOf({ graph, files }: OpenedGraph, path: string): ImageFile | undefined {
  const main = mainFile(nodeAt(graph, path));
  return main === null ? undefined : files[pathOf(path, main)];
}

function forReading(opened: OpenedGraph): OpenedGraph {
  return { ...opened, readOnly: true };
}

/** The name of the main file of a node, without its directory; null if it has none. */
function nameOf(opened: OpenedGraph, path: string): string | null {
  const file = mainOf(opened, path);
  return file === undefined ? null : (file.name ?? basename(file.path));
}

/** The roles of a node whose optional file does not exist. */
function absentOf({ absent = [] }: OpenedGraph, node: string): string[] {
  return absent.flatMap((path) => {
    const role = path.slice(path.lastIndexOf('/') + 1);
    return pathOf(node, role) === path ? [role] : [];
  });
}

type Work = Pick<PrepareContext, 'signal' | 'progress' | 'path'>;

/** Fills the memory of a node. @returns the state for its driver */
export function prepareNode(opened: OpenedGraph, path: string, memory: Memory, work: Work): Promise<Json> {
  return withBelow(forReading(opened), path, async (driver, given, node) => {
    checkComplete(driver, node);
    const { options } = node;
    return (await driver.prepare?.({ ...given, memory, options, ...work })) ?? null;
  });
}

/**
 * Lets the driver of a node finish what a crash left behind. The nodes below it must be repaired already.
 * @returns remarks for the user
 */
export function repairNode(opened: OpenedGraph, path: string, work: Work): Promise<readonly string[]> {
  return withBelow(opened, path, async (driver, given, node) => {
    checkComplete(driver, node);
    const { options } = node;
    const repair = async (): Promise<readonly string[]> => driver.repair?.({ ...given, options, ...work }) ?? [];
    return await said(driver, opened, path, repair);
  });
}

/** How large the memory of a node will be. */
export interface Measured {
  /** the most bytes that `prepare` will fill */
  readonly bytes: number;
  /** of what is under the role `file`; null if there is nothing */
  readonly sizeBytes: number | null;
}

export function measureNode(opened: OpenedGraph, path: string, work: Omit<Work, 'progress'>): Promise<Measured> {
  return withBelow(forReading(opened), path, async (driver, given, node) => {
    checkComplete(driver, node);
    const { options } = node;
    const sizeBytes = given.disks.file?.size ?? given.files.file?.sizeBytes ?? null;
    const bytes = await driver.measure?.({ ...given, options, ...work });
    return { bytes: bytes ?? sizeBytes ?? 0, sizeBytes };
  });
}
