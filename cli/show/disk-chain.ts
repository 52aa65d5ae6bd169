/**
 * The images of a disk as a tree to draw. A chain is drawn as a list and not as stairs, so that one of 30 images still fits
 * on a terminal. The number of an image in the list is its DEPTH in `fusetap map`.
 *
 *      images
 *      ├─0 snapshot
 *      ├─1 qcow2 /img/top.qcow2
 *      └─2 aio base.img            a name without a directory: in that of the image before
 */
import { dirname } from 'node:path';
import { type FileSpec, isFile, isSimple, type NodeSpec } from '../../drivers/graph.js';
import { DEFAULT_DRIVER, SNAPSHOT_DRIVER } from '../../drivers/names.js';
import type { Branch } from './tree.js';

/** A link of the chain: what it is called, and what it is made of besides the next one. */
interface Link {
  readonly node: NodeSpec | FileSpec;
  /** the role of the next link; null: it is the last */
  readonly next: string | null;
}

/** Null for one driver over one file, which a line of text says as well. */
export function chainBranch(top: NodeSpec): Branch | null {
  if (isSimple(top)) return null;
  let directory: string | null = null;
  const named = (path: string): string => {
    const isSame = dirname(path) === directory;
    directory = dirname(path);
    return isSame ? path.slice(directory === '/' ? 1 : directory.length + 1) : path;
  };
  const links = linksOf(top);
  const below = links.map((link, depth) => linkBranch(link, links.length > 1 ? `${depth} ` : '', named));
  return { text: links.length > 1 ? `${links.length} images` : 'image', below };
}

function linksOf(top: NodeSpec): Link[] {
  const links: Link[] = [];
  for (let node: NodeSpec | FileSpec | undefined = top; node !== undefined; ) {
    const next: string | null = isFile(node) ? null : nextRole(node);
    links.push({ node, next });
    node = isFile(node) || next === null ? undefined : node.on[next];
  }
  return links;
}

/** The role under which a driver has what is not in its own image. */
function nextRole({ driver, on }: NodeSpec): string | null {
  if (on.backing !== undefined) return 'backing';
  return driver === SNAPSHOT_DRIVER && on.file !== undefined ? 'file' : null;
}

type Named = (path: string) => string;

function linkBranch({ node, next }: Link, number: string, named: Named): Branch {
  if (isFile(node)) return { text: `${number}${DEFAULT_DRIVER} ${named(node.file)}`, below: [] };
  return nodeBranch(node, number, { next, named });
}

/** A driver over its main file is one line; all else that it has is below that line. */
function nodeBranch(node: NodeSpec, before: string, { next, named }: { next: string | null; named: Named }): Branch {
  const { driver, options, on } = node;
  const own = next === 'file' ? undefined : on.file;
  const isPlain = own !== undefined && isFile(own);
  const words = [driver, ...(isPlain ? [named(own.file)] : [])];
  const pairs = Object.entries(options).map(([name, value]) => `${name}=${value}`);
  const others = Object.entries(on).filter(([role]) => role !== next && !(role === 'file' && isPlain));
  const below = others.map(([role, each]): Branch => {
    if (isFile(each)) return { text: `${role}: ${named(each.file)}`, below: [] };
    return nodeBranch(each, `${role}: `, { next: null, named });
  });
  return { text: `${before}${[words.join(' '), ...pairs].join(', ')}`, below };
}
