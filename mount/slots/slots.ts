/**
 * Slots and vdevs: Xen's numbers of the places on a bus and their names. 51712 is xvda, 51728 is xvdb.
 *
 *     xvd and dNpM   disk, partition ≤ 15     202 << 8 | disk << 4 | partition
 *                    above                    1 << 28  | disk << 8 | partition      disk < 2^20, partition ≤ 255
 *     hd             disk ≤ 3, partition ≤ 63 (3 or 22) << 8 | (disk & 1) << 6 | partition
 *     sd             disk, partition ≤ 15     8 << 8   | disk << 4 | partition
 *     a number       itself                   below 2^31
 *
 * The rules are libxl's (libxl__device_disk_dev_number), so that a name means the same here and in a domain. Each name
 * belongs to one slot and each slot has one name: the two directions are exact inverses of each other.
 */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';

/** A place on a bus. */
export interface Slot {
  readonly slot: number;
  /** the name of its file on the bus: an xvd, hd or sd name, else the number in decimal */
  readonly vdev: string;
}

/** libxl and xenstore keep a slot in a C int, so this is the largest slot for Xen tools. */
const MAX_SLOT = 2 ** 31 - 1;

const XVD_MAJOR = 202;
const SD_MAJOR = 8;
const HD_MAJORS = [3, 22];
const EXTENDED = 2 ** 28;
const MAX_DISK = 2 ** 20 - 1;
const MAX_PARTITION = 255;

const VDEV_HINT =
  'use xvda, xvdb …, xvdaa …, hda … hdd or sda … sdp, with a partition number if needed (xvda1), d0p1, or a slot number';

// each returns null if its kind has no such disk or partition
function xvdSlot(disk: number, partition: number): number | null {
  if (disk > MAX_DISK || partition > MAX_PARTITION) return null;
  if (disk <= 15 && partition <= 15) return (XVD_MAJOR << 8) | (disk << 4) | partition;
  return EXTENDED + disk * 256 + partition;
}

function hdSlot(disk: number, partition: number): number | null {
  const major = HD_MAJORS[disk >> 1];
  if (major === undefined || partition > 63) return null;
  return (major << 8) | ((disk & 1) << 6) | partition;
}

function sdSlot(disk: number, partition: number): number | null {
  if (disk > 15 || partition > 15) return null;
  return (SD_MAJOR << 8) | (disk << 4) | partition;
}

/** Letters as a number, in base 26 without a zero: z is 25 and aa is 26. */
function diskOfLetters(letters: string): number {
  let count = 0;
  for (const letter of letters) count = count * 26 + (letter.charCodeAt(0) - 96);
  return count - 1;
}

function lettersOfDisk(disk: number): string {
  let letters = '';
  for (let count = disk + 1; count > 0; count = Math.floor((count - 1) / 26)) {
    letters = String.fromCharCode(97 + ((count - 1) % 26)) + letters;
  }
  return letters;
}

/**
 * The slot of a bare number, null for any other word. The number is decimal, 0x… or 0… (octal), as for strtoul(3), but
 * without signs and blanks.
 */
export function slotOfNumber(word: string): number | null {
  let slot: number;
  if (/^0[xX][0-9a-fA-F]{1,16}$/.test(word)) slot = Number.parseInt(word, 16);
  else if (/^0[0-7]{0,16}$/.test(word)) slot = Number.parseInt(word, 8);
  else if (/^[1-9][0-9]{0,15}$/.test(word)) slot = Number.parseInt(word, 10);
  else return null;
  return slot <= MAX_SLOT ? slot : null;
}

// five letters are enough for the last disk; a partition has no leading zero, so that no slot has two names
const NAME = /^(?:\/dev\/)?(xvd|hd|sd)([a-z]{1,5})([1-9][0-9]{0,2})?$/;
// the digits are decimal even after a zero, and d0 is d0p0
const DISK_AND_PARTITION = /^d([0-9]{1,10})(?:p([0-9]{1,10}))?$/;

/** The slot of a vdev or a number, or null if the word is neither. Forms: see parseSlot. */
export function findSlot(word: string): number | null {
  const [, kind, letters, partition] = NAME.exec(word) ?? [];
  if (kind !== undefined && letters !== undefined) {
    const slotOf = kind === 'xvd' ? xvdSlot : kind === 'hd' ? hdSlot : sdSlot;
    return slotOf(diskOfLetters(letters), Number(partition ?? 0));
  }
  const pair = DISK_AND_PARTITION.exec(word);
  if (pair !== null) return xvdSlot(Number(pair[1]), Number(pair[2] ?? 0));
  return slotOfNumber(word);
}

/**
 * The slot of a vdev (or of any other word that parseSlot takes).
 *
 * @throws FusetapError USAGE for a word that is not a slot
 */
export function slotOfVdev(vdev: string): number {
  const slot = findSlot(vdev);
  if (slot === null) throw new FusetapError('USAGE', `${quoted(vdev)} is not a vdev`, { hint: VDEV_HINT });
  return slot;
}

/**
 * The canonical vdev of a slot: its xvd, hd or sd name, else the number in decimal. A slot of the extended range stays
 * a number if its disk and partition have a smaller slot too (268435456 would be a second xvda): two files on a bus
 * must not have the same name.
 *
 * @throws RangeError if the number is not a slot: a mistake of the caller
 */
export function vdevOfSlot(slot: number): string {
  if (!Number.isInteger(slot) || slot < 0 || slot > MAX_SLOT) throw new RangeError(`not a slot: ${slot}`);
  const name = nameOfSlot(slot);
  return name !== null && findSlot(name) === slot ? name : String(slot);
}

/** The name that the bits of a slot give; it may belong to another slot. */
function nameOfSlot(slot: number): string | null {
  const named = (kind: string, disk: number, partition: number): string =>
    kind + lettersOfDisk(disk) + (partition === 0 ? '' : partition);
  if (slot >= EXTENDED) return slot < 2 * EXTENDED ? named('xvd', (slot - EXTENDED) >> 8, slot & 255) : null;
  const major = slot >> 8;
  const minor = slot & 255;
  if (major === XVD_MAJOR) return named('xvd', minor >> 4, minor & 15);
  if (major === SD_MAJOR) return named('sd', minor >> 4, minor & 15);
  if (HD_MAJORS.includes(major)) return named('hd', HD_MAJORS.indexOf(major) * 2 + (minor >> 6), minor & 63);
  return null;
}

/**
 * The slot that a user's word names: `xvda`, `hdc2`, `/dev/xvda`, `d0`, `d1p2`, `51712`, `0xca00`, `0145000`.
 *
 * @throws FusetapError USAGE for a word that is not a slot
 */
export function parseSlot(word: string): Slot {
  const slot = slotOfVdev(word);
  return { slot, vdev: vdevOfSlot(slot) };
}

/** The number of the xvd disk for the slot of the disk or of one of its partitions; null for other slots. */
function xvdDiskOfSlot(slot: number): number | null {
  if (slot >> 8 === XVD_MAJOR) return (slot & 255) >> 4;
  if (slot >= EXTENDED && slot < 2 * EXTENDED) return (slot - EXTENDED) >> 8;
  return null;
}

/**
 * The first free xvd disk of a bus, as `xvda`. A disk is not free if the slot of one of its partitions is taken: in a
 * domain, and on a bus with `--partitions`, xvda and the xvda1 of another image would conflict.
 *
 * @param taken the slots in use
 * @throws FusetapError BUSY when all 2^20 are taken
 */
export function firstFreeXvd(taken: Iterable<number>): string {
  const disks = new Set<number | null>();
  for (const slot of taken) disks.add(xvdDiskOfSlot(slot));
  for (let disk = 0; disk <= MAX_DISK; disk++) {
    if (!disks.has(disk)) return `xvd${lettersOfDisk(disk)}`;
  }
  throw new FusetapError('BUSY', 'no xvd disk is free on the bus', { hint: 'detach one, or use another --bus' });
}
