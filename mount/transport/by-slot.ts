/**
 * `by-slot/51712`: a directory on the bus with links to the vbds, named by Xen's numbers.
 *
 * It has no state: links and their node ids are derived from the vbds, so a new server shows the same. A vbd that is
 * leaving has no link.
 */
import { findSlot, slotOfNumber, vdevOfSlot } from '../slots/slots.js';
import type { Tree, TreeNode } from './tree.js';
/** The name of the directory. It cannot be a vdev, because no vdev has a `-`. */
export const BY_SLOT = 'by-slot';

/** The node id of the directory: above those of vbds, because no bus will have so many vbds. */
export const BY_SLOT_NODE_ID = 2 ** 30;

/** The node id of the link to a vbd. */
export function linkNodeId({ file }: TreeNode): number {
  return BY_SLOT_NODE_ID + file.nodeId;
}

export interface SlotLink {
  /** the slot, in decimal */
  readonly name: string;
  readonly node: TreeNode;
}

/** The target of a link: the vbd, relative to the directory of links. */
export function linkTarget({ file }: TreeNode): string {
  return `../${file.name}`;
}

/** The vbd of a slot. The only name of its link is the number in decimal. */
export function findLink(tree: Tree, name: string): TreeNode | undefined {
  const slot = slotOfNumber(name);
  return slot === null || String(slot) !== name ? undefined : tree.byName(vdevOfSlot(slot));
}

/** The vbd of a link's node id. */
export function linkedNode(tree: Tree, nodeId: number): TreeNode | undefined {
  // ids that are higher still are of links by name, and no vbd has such a node id
  return nodeId > BY_SLOT_NODE_ID ? tree.byId(nodeId - BY_SLOT_NODE_ID) : undefined;
}

/** The links after a cursor, which is the node id of a vbd. */
export function linksAfter(tree: Tree, cursor: number): SlotLink[] {
  return tree.after(cursor).flatMap((node) => {
    const slot = findSlot(node.file.name);
    return slot === null ? [] : [{ name: String(slot), node }];
  });
}
