/** What a request asks for as its disk: as clients make and compare it. */
import { FusetapError } from '../../drivers/errors.js';
import { describeGraph, isFile, isSimple, mainFile, mainImage, type NodeSpec, treeOf } from '../../drivers/graph.js';
import { DEFAULT_DRIVER, SNAPSHOT_DRIVER } from '../../drivers/names.js';
import type { DiskWish, VbdInfo } from '../control/interface.js';
import { findDriver } from './find-driver.js';

/** The same request for another tree. */
export function withTree<Wish extends DiskWish>(wish: Wish, tree: NodeSpec): Wish {
  const { disk: _, ...others } = wish;
  const top = { driver: tree.driver, image: mainImage(tree), options: { ...tree.options } };
  return { ...others, ...top, ...(!isSimple(tree) && { disk: tree }) } as Wish;
}

/**
 * The same request for a snapshot of its disk: writes go to memory.
 * @throws FusetapError USAGE if its memory is shared by a name: that is not the memory of a snapshot
 */
export function asSnapshot<Wish extends DiskWish>(wish: Wish): Wish {
  if (typeof wish.share === 'string') {
    throw new FusetapError('USAGE', `the memory of a snapshot is its own: it cannot be shared as ${wish.share}`, {
      hint: 'omit --share, or --snapshot',
    });
  }
  const base = treeOf(wish);
  const file = base.on.file;
  // the bytes of an image need no driver of their own
  const isPlain = base.driver === DEFAULT_DRIVER && Object.keys(base.options).length === 0;
  const below = isPlain && file !== undefined && isFile(file) ? file : base;
  return withTree(wish, { driver: SNAPSHOT_DRIVER, options: {}, on: { file: below } });
}

/** The same request, with drivers of others by absolute paths. @param cwd see findDriver */
export function withFoundDrivers<Wish extends DiskWish>(wish: Wish, cwd: () => string): Wish {
  const { disk, driver } = wish;
  return { ...wish, driver: findDriver(driver, cwd), ...(disk !== undefined && { disk: withFound(disk, cwd) }) };
}

function withFound({ driver, options, on }: NodeSpec, cwd: () => string): NodeSpec {
  const below = Object.entries(on).map(([role, each]) => [role, isFile(each) ? each : withFound(each, cwd)]);
  return { driver: findDriver(driver, cwd), options, on: Object.fromEntries(below) };
}

/** The disk of a vbd as a SPEC says it: `ram:vhd:/img/a.vhd`. */
export function describeDisk(vbd: Pick<VbdInfo, 'driver' | 'image' | 'options' | 'disk'>): string {
  return describeGraph(treeOf({ ...vbd, options: vbd.options ?? {} }));
}

/**
 * Whether a vbd has the tree that is asked for. The main file is not compared, because it may have several paths. A vbd has
 * also the files that its images name.
 */
export function hasTree(vbd: Pick<VbdInfo, 'driver' | 'image' | 'options' | 'disk'>, asked: NodeSpec): boolean {
  return isWithin(asked, treeOf({ ...vbd, options: vbd.options ?? {} }), mainFile(asked));
}

function isWithin(asked: NodeSpec, found: NodeSpec, main: string | null, path = ''): boolean {
  if (asked.driver !== found.driver || !isSameRecord(asked.options, found.options)) return false;
  return Object.entries(asked.on).every(([role, below]) => {
    const other = found.on[role];
    if (other === undefined) return false;
    const at = path === '' ? role : `${path}/${role}`;
    if (isFile(below) && isFile(other)) return at === main || below.file === other.file;
    return !isFile(below) && !isFile(other) && isWithin(below, other, main, at);
  });
}

function isSameRecord(one: Readonly<Record<string, string>>, other: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
