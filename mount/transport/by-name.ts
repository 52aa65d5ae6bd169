/**
 * `by-label/root`, `by-uuid/…`, `by-partlabel/…`, `by-partuuid/…`: directories on the bus with links to the files that
 * carry a name, as in /dev/disk. mount/labels finds the names; this file has what follows from the vbds alone.
 *
 * A vbd has at most one name of each kind. So the node id of a link follows from the kind and the vbd, and where it leads
 * is known without reading the disk: a new server shows the same.
 */
import type { Tree, TreeNode } from './tree.js';

export const NAME_KINDS = ['label', 'uuid', 'partlabel', 'partuuid'] as const;
export type NameKind = (typeof NAME_KINDS)[number];

/** above the links of by-slot; below 2^32, because old programs have inode numbers of 32 bits */
const FIRST_NODE_ID = 2 ** 31;
const KIND_NODE_IDS = 2 ** 29;
const LONGEST_NAME_BYTES = 255;

/** The name of the directory. It cannot be a vdev, because no vdev has a `-`. */
export function nameDirectory(kind: NameKind): string {
  return `by-${kind}`;
}

export function kindOfDirectory(name: string): NameKind | undefined {
  return NAME_KINDS.find((kind) => name === nameDirectory(kind));
}

export function nameDirectoryId(kind: NameKind): number {
  return FIRST_NODE_ID + NAME_KINDS.indexOf(kind) * KIND_NODE_IDS;
}

/** The kind of a directory of names, by its node id. */
export function kindOfDirectoryId(nodeId: number): NameKind | undefined {
  return NAME_KINDS.find((kind) => nodeId === nameDirectoryId(kind));
}

/** The node id of the link of that kind to a file. */
export function nameLinkId(kind: NameKind, { file }: TreeNode): number {
  return nameDirectoryId(kind) + file.nodeId;
}

/** The file of the node id of a link in a directory of names. */
export function namedNode(tree: Tree, nodeId: number): TreeNode | undefined {
  return nodeId > FIRST_NODE_ID ? tree.byId((nodeId - FIRST_NODE_ID) % KIND_NODE_IDS) : undefined;
}

const PLAIN = /[0-9A-Za-z#+\-.:=@_]/;

/**
 * A name as udev writes it: unsafe characters as `\x20`, also `/`. Characters beyond ASCII stay if they are valid UTF-8;
 * as in libblkid, these are not: surrogates, U+FDD0 to U+FDEF, and the last one of each plane.
 */
export function encodeName(bytes: Uint8Array): string {
  let encoded = '';
  for (let at = 0; at < bytes.length; ) {
    const [character, length] = characterAt(bytes, at);
    if (length > 1 || PLAIN.test(character)) encoded += character;
    else encoded += `\\x${(bytes[at] as number).toString(16).padStart(2, '0')}`;
    at += length;
  }
  return encoded;
}

/** The character there and its bytes; of bytes that are no character the first. */
function characterAt(bytes: Uint8Array, at: number): [character: string, length: number] {
  const first = bytes[at] as number;
  const length = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf8 ? 4 : 1;
  const alone: [string, number] = [first < 0x80 ? String.fromCharCode(first) : '', 1];
  if (length === 1 || at + length > bytes.length) return alone;
  const piece = Buffer.from(bytes.subarray(at, at + length));
  const character = piece.toString('utf8');
  const code = character.codePointAt(0) ?? 0;
  const isNone = (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xffff) === 0xffff;
  return isNone || !Buffer.from(character).equals(piece) ? alone : [character, length];
}

/**
 * The name of a link; null if no file can have that name. `.` and `..` are encoded, though udev leaves them out.
 * @param encoded see encodeName
 */
export function linkName(encoded: string): string | null {
  if (encoded === '' || Buffer.byteLength(encoded) > LONGEST_NAME_BYTES) return null;
  return encoded === '.' || encoded === '..' ? encoded.replaceAll('.', '\\x2e') : encoded;
}
