/**
 * The disk of a spec as the control interface takes it: a driver over an image, or a tree of drivers. The options of the
 * command line are given to the nodes of the tree that they name.
 *
 *      ram:vhd:a.vhd  --option file/KEY=VALUE    ──►    ram {}  ── file ──►  vhd {KEY: VALUE}  ── file ──►  a.vhd
 */
import { resolve } from 'node:path';
import { FusetapError } from '../drivers/errors.js';
import { isSimple, type NodeSpec, nodesOf, pathOf, simpleGraph } from '../drivers/graph.js';
import { factsOf } from '../drivers/names.js';
import { quoted } from '../drivers/quote.js';
import { canonicalUri } from '../drivers/remote-uris.js';
import type { DiskWish } from '../mount/control/interface.js';

/** A word of `--option`. */
export interface OptionWord {
  /** the path of the driver in the tree; empty: the top */
  readonly node: string;
  readonly name: string;
  readonly value: string;
}

type WishedDisk = Pick<DiskWish, 'driver' | 'image' | 'options' | 'disk'>;

/**
 * A disk on a network: its URI is an option, with absolute paths.
 * @param drivers the top first
 * @throws FusetapError USAGE
 */
export function remoteDisk(drivers: readonly string[], uri: string, options: readonly OptionWord[]): WishedDisk {
  const value = canonicalUri(uri, (path) => resolve(path));
  const node = Array(drivers.length - 1)
    .fill('file')
    .join('/');
  return diskOf(drivers, null, [...options, { node, name: 'uri', value }]);
}

/** Whether the disk of these drivers has its bytes on a network. */
export function isRemote(drivers: readonly string[]): boolean {
  return factsOf(drivers.at(-1) ?? '')?.isRemote === true;
}

/**
 * @param drivers the top first
 * @param image absolute
 * @throws FusetapError USAGE for an option of a driver that the disk does not have
 */
export function diskOf(drivers: readonly string[], image: string | null, options: readonly OptionWord[]): WishedDisk {
  const own = (path: string): Record<string, string> =>
    Object.fromEntries(options.filter(({ node }) => node === path).map(({ name, value }) => [name, value]));
  const paths = drivers.map((_, depth) => Array(depth).fill('file').join('/'));
  const [bottom = '', ...above] = [...drivers].reverse();
  let disk: NodeSpec = simpleGraph(bottom, image, own(paths.at(-1) ?? ''));
  for (const [index, driver] of above.entries()) {
    disk = { driver, options: own(paths.at(-2 - index) ?? ''), on: { file: disk } };
  }
  const other = options.find(({ node }) => !nodesOf(disk).has(node));
  if (other !== undefined) throw noSuchNode(other, disk);
  const top = { driver: disk.driver, image, options: { ...disk.options } };
  return isSimple(disk) ? top : { ...top, disk };
}

function noSuchNode({ node, name }: OptionWord, disk: NodeSpec): FusetapError {
  const below = [...nodesOf(disk).keys()].filter((path) => path !== '');
  const own = `an option of ${disk.driver} has no path: --option ${name}=VALUE`;
  return new FusetapError('USAGE', `--option ${pathOf(node, name)}: the disk has no driver at ${quoted(node)}`, {
    hint: below.length === 0 ? own : `drivers are at ${below.map(quoted).join(', ')}; ${own}`,
  });
}
