/**
 * The tree of a disk, as plain data: as it is asked for, stored, and given to each new server.
 *
 *      {"driver":"ram","options":{},"on":{"file":{"driver":"vhd","options":{},"on":{"file":{"file":"/img/a.vhd"}}}}}
 *
 * A node is named by its path: the roles from the top, as `file` above; the top is the empty path. A file is named so
 * too: `file/file`.
 */
import { isAbsolute } from 'node:path';
import { FusetapError } from './errors.js';
import { quoted } from './quote.js';

/** A file: the only way in which a file gets into a tree. */
export interface FileSpec {
  /** absolute */
  readonly file: string;
}

/** A driver with its options, over files and other nodes by their roles. */
export interface NodeSpec {
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
  readonly on: Readonly<Record<string, NodeSpec | FileSpec>>;
}

/** the most nodes below one another; `vhd` chains of 30 are common, and QEMU refuses more than 200 */
export const DEEPEST = 64;
/** the most files of one disk: their descriptors are sent in one message, which takes 253 */
export const MOST_FILES = 250;
const MOST_NODES = 2 * MOST_FILES;

export function isFile(below: NodeSpec | FileSpec): below is FileSpec {
  return 'file' in below;
}

/** The tree of a driver over one file, or over none. */
export function simpleGraph(
  driver: string,
  image: string | null,
  options: Readonly<Record<string, string>> = {},
): NodeSpec {
  return { driver, options, on: image === null ? {} : { file: { file: image } } };
}

/** The tree that a request asks for, or that a vbd has: `disk`, or the driver over its image. */
export function treeOf(asked: {
  readonly driver: string;
  readonly image: string | null;
  readonly options: Readonly<Record<string, string>>;
  readonly disk?: NodeSpec | undefined;
}): NodeSpec {
  return asked.disk ?? simpleGraph(asked.driver, asked.image, asked.options);
}

/** Whether a tree is one driver over one file or none, which `driver`, `image` and `options` can express. */
export function isSimple({ on }: NodeSpec): boolean {
  return Object.entries(on).every(([role, below]) => role === 'file' && isFile(below));
}

/** Whether a tree has code of third parties: if that kills the server, it is not tried again. */
export function hasThirdParty(top: NodeSpec): boolean {
  return [...nodesOf(top).values()].some(({ driver }) => isAbsolute(driver));
}

/** The path of what is below a node under a role. */
export function pathOf(node: string, role: string): string {
  return node === '' ? role : `${node}/${role}`;
}

/** All nodes by their paths, each before those below it. */
export function nodesOf(top: NodeSpec, path = ''): Map<string, NodeSpec> {
  const found = new Map([[path, top]]);
  for (const [role, below] of Object.entries(top.on)) {
    if (!isFile(below)) for (const [at, node] of nodesOf(below, pathOf(path, role))) found.set(at, node);
  }
  return found;
}

/** All files by their paths. */
export function filesOf(top: NodeSpec): Map<string, string> {
  const found = new Map<string, string>();
  for (const [path, { on }] of nodesOf(top)) {
    for (const [role, below] of Object.entries(on)) if (isFile(below)) found.set(pathOf(path, role), below.file);
  }
  return found;
}

/** The path of the file that a user thinks of as the image: down the role `file`; null if there is none. */
export function mainFile(top: NodeSpec): string | null {
  let path = '';
  for (let node = top; ; ) {
    const below = node.on.file;
    if (below === undefined) return null;
    path = pathOf(path, 'file');
    if (isFile(below)) return path;
    node = below;
  }
}

/** What the main file is called; null if there is none. */
export function mainImage(top: NodeSpec): string | null {
  return filesOf(top).get(mainFile(top) ?? '') ?? null;
}

/** The tree with something added below a node. @param node its path */
export function withBelow(top: NodeSpec, node: string, role: string, added: NodeSpec | FileSpec): NodeSpec {
  const [first, ...rest] = node === '' ? [] : node.split('/');
  if (first === undefined) return { ...top, on: { ...top.on, [role]: added } };
  const below = top.on[first];
  if (below === undefined || isFile(below)) throw new RangeError(`the tree has no node ${node}`);
  return { ...top, on: { ...top.on, [first]: withBelow(below, rest.join('/'), role, added) } };
}

/** A part of a tree, by its path. */
export function nodeAt(top: NodeSpec, path: string): NodeSpec {
  const found = nodesOf(top).get(path);
  if (found === undefined) throw new RangeError(`the tree has no node ${path}`);
  return found;
}

/** The part of `entries` that is below a node, by the paths that it has there. */
export function entriesBelow<Value>(entries: Readonly<Record<string, Value>>, node: string): Record<string, Value> {
  if (node === '') return { ...entries };
  const prefix = `${node}/`;
  const below = Object.entries(entries).filter(([path]) => path === node || path.startsWith(prefix));
  return Object.fromEntries(below.map(([path, value]) => [path.slice(prefix.length), value]));
}

/** The URI of a disk that is not on this machine: the option `uri` of its driver. Null for other disks. */
export function remoteUri(top: {
  readonly driver: string;
  readonly options?: Readonly<Record<string, string>> | undefined;
}): string | null {
  const uri = top.options?.uri;
  const schemes = top.driver === 'https' ? ['http:', 'https:'] : [top.driver];
  return uri !== undefined && schemes.some((scheme) => uri.startsWith(scheme)) ? uri : null;
}

/**
 * A tree as the specs of the command line say it: its drivers from the top, then its main file, and no other; or its URI.
 */
export function describeGraph(top: NodeSpec): string {
  const below = top.on.file;
  if (below === undefined) return remoteUri(top) ?? top.driver;
  return `${top.driver}:${isFile(below) ? below.file : describeGraph(below)}`;
}

/** @throws FusetapError USAGE if a tree is too large or too deep, or names a file by a path that is not absolute */
export function checkGraph(top: NodeSpec): void {
  const all = nodesOf(top);
  const files = filesOf(top);
  const deepest = Math.max(...[...all.keys()].map((path) => (path === '' ? 1 : path.split('/').length + 1)));
  if (deepest > DEEPEST) throw tooLarge(`it is more than ${DEEPEST} drivers deep`);
  if (all.size > MOST_NODES || files.size > MOST_FILES) throw tooLarge(`it has more than ${MOST_FILES} files`);
  for (const path of files.values()) {
    if (isAbsolute(path)) continue;
    throw new FusetapError('USAGE', `${quoted(path)} is not absolute`, { path, hint: 'give the absolute path' });
  }
}

function tooLarge(why: string): FusetapError {
  return new FusetapError('USAGE', `the disk cannot be opened: ${why}`, { hint: 'merge files of the chain' });
}

/**
 * A tree from JSON that somebody wrote. `options` and `on` may be omitted.
 * @throws FusetapError USAGE that says where it is wrong, as `disk.on.file.driver`
 */
export function parseGraph(value: unknown, at = 'disk', depth = 1): NodeSpec {
  if (depth > DEEPEST) throw tooLarge(`it is more than ${DEEPEST} drivers deep`);
  const { driver, options = {}, on = {}, ...others } = objectAt(value, at);
  const [other] = Object.keys(others);
  if (other !== undefined) throw wrong(`${at}.${other}`, 'a node has driver, options and on');
  if (typeof driver !== 'string' || driver === '' || driver.length > 4096) {
    throw wrong(`${at}.driver`, 'it must be the name of a driver');
  }
  const texts = Object.entries(objectAt(options, `${at}.options`));
  for (const [name, text] of texts)
    if (typeof text !== 'string') throw wrong(`${at}.options.${name}`, 'it must be text');
  const below = Object.entries(objectAt(on, `${at}.on`)).map(([role, each]): [string, NodeSpec | FileSpec] => {
    const place = `${at}.on.${role}`;
    if (!/^[a-z]+\d*$/.test(role)) throw wrong(place, 'a role has lower case letters and perhaps a number');
    const entry = objectAt(each, place);
    if (!Object.hasOwn(entry, 'file')) return [role, parseGraph(entry, place, depth + 1)];
    if (typeof entry.file !== 'string' || !isAbsolute(entry.file) || Object.keys(entry).length > 1) {
      throw wrong(place, 'a file is {"file": PATH} with an absolute path');
    }
    return [role, { file: entry.file }];
  });
  return { driver, options: Object.fromEntries(texts) as Record<string, string>, on: Object.fromEntries(below) };
}

function objectAt(value: unknown, at: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(at, value === undefined ? 'it is missing' : 'it must be an object');
}

function wrong(at: string, why: string): FusetapError {
  const hint = 'as {"driver": "vhd", "on": {"file": {"file": "/img/a.vhd"}}}';
  return new FusetapError('USAGE', `${quoted(at)}: ${why}`, { hint });
}

/** The paths of nodes, those below first: a path is longer than those of the nodes above. */
export function lowerFirst(paths: readonly string[]): string[] {
  return [...paths].sort((a, b) => b.length - a.length);
}
