/**
 * `by-slot/51712`: the vbds of a bus by Xen's numbers, in a directory of links beside them.
 *
 * Nothing of it is kept: what is there follows from the vbds, and node ids follow from theirs, so a new server shows the
 * same. A vbd that is leaving has no link.
 */
import { findSlot, slotOfNumber, vdevOfSlot } from '../slots/slots.js';
import type { Tree, TreeNode } from './tree.js';
/** The name of the directory; no vdev has a `-`. */
export const BY_SLOT = 'by-slot';

/** The node id of the directory: above those of vbds, of which no bus lives long enough to see so many. */
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

/** What a link holds: the vbd, from the directory of links. */
export function linkTarget({ file }: TreeNode): string {
  return `../${file.name}`;
}

/** The vbd of a slot, which has one name only: its number in decimal. */
export function findLink(tree: Tree, name: string): TreeNode | undefined {
  const slot = slotOfNumber(name);
  return slot === null || String(slot) !== name ? undefined : tree.byName(vdevOfSlot(slot));
}

/** The vbd of a link's node id. */
export function linkedNode(tree: Tree, nodeId: number): TreeNode | undefined {
  return nodeId > BY_SLOT_NODE_ID ? tree.byId(nodeId - BY_SLOT_NODE_ID) : undefined;
}

/** The links behind a cursor, which is a node id of a vbd. */
export function linksAfter(tree: Tree, cursor: number): SlotLink[] {
  return tree.after(cursor).flatMap((node) => {
    const slot = findSlot(node.file.name);
    return slot === null ? [] : [{ name: String(slot), node }];
  });
}
