/** The tree of a disk as indented lines: a line for each driver, with its options, and for each file. */
import { isFile, type NodeSpec } from '../../drivers/graph.js';

/**
 *      snapshot
 *        file: tar, member=disk.vmdk
 *          file: /img/box.ova
 */
export function diskLines({ driver, options, on }: NodeSpec): string[] {
  const pairs = Object.entries(options).map(([name, value]) => `${name}=${value}`);
  const below = Object.entries(on).flatMap(([role, each]) => {
    const [first = '', ...rest] = isFile(each) ? [each.file] : diskLines(each);
    return [`${role}: ${first}`, ...rest];
  });
  return [[driver, ...pairs].join(', '), ...below.map((line) => `  ${line}`)];
}
