/**
 * The descriptor of a VMDK: a text that names the files of the disk, its extents.
 *
 *      # Disk DescriptorFile
 *      version=1
 *      CID=fffffffe
 *      parentCID=ffffffff
 *      createType="twoGbMaxExtentFlat"
 *      RW 4192256 FLAT "disk-f001.vmdk" 0
 *      RW 2048 ZERO
 *
 * An extent has an access, a size in sectors, a type, a name, and where it begins in its file, in sectors. A snapshot or a
 * linked clone has the content id (CID) of its parent in parentCID, and the name of the parent in parentFileNameHint.
 */
import { unsupported as cannotServe, broken as damaged } from '../formats/faults.js';
import { escapeControls, quoted } from '../quote.js';

/** the first line, in any case */
export const FIRST_LINE = '# disk descriptorfile';
/** descriptors of disks with hundreds of extents have some KiB */
export const MOST_DESCRIPTOR_BYTES = 1 << 20;
export const SECTOR_BYTES = 512;

export interface Extent {
  /** `none`: clients can do nothing there */
  readonly access: 'write' | 'read' | 'none';
  /** as the descriptor calls it, for people */
  readonly type: string;
  /** bytes */
  readonly size: number;
  /** null: in no file */
  readonly place: Place | null;
}

/** Where an extent is. */
export interface Place {
  /** the index of the name in `names` */
  readonly file: number;
  /** bytes; 0 if the extent is sparse */
  readonly start: number;
  /** the file has a header and tables, which say where the bytes are */
  readonly isSparse: boolean;
}

/** The disk that has what a snapshot or a linked clone does not have. */
export interface Parent {
  /** the content id that the parent must have */
  readonly cid: string;
  /** as the descriptor names it: hostile input */
  readonly name: string;
}

export interface Descriptor {
  /** empty if the descriptor is inside its only extent */
  readonly extents: readonly Extent[];
  /** the files of the extents, each once, as the descriptor names them: hostile input */
  readonly names: readonly string[];
  /** a program tracks which blocks change (CBT): a write by others breaks its next backup */
  readonly isTracked: boolean;
  /** the content id, 8 digits: another one after the disk was written; null if it is not stated */
  readonly cid: string | null;
  readonly parent: Parent | null;
  /** for people; null if it is not stated */
  readonly createType: string | null;
  readonly adapterType: string | null;
}

const broken = (what: string): Error => damaged('VMDK descriptor', what);
const unsupported = (what: string): Error => cannotServe(`it is a VMDK ${what}`);

const EXTENT_LINE = /^(RW|RDONLY|NOACCESS)\s+(\d{1,16})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d{1,16}))?)?(.*)$/;
const ACCESS = { RW: 'write', RDONLY: 'read', NOACCESS: 'none' } as const;
const SETTING_NAME = /^[A-Za-z][\w.:]*$/;
/** in characters; the patterns take time that grows faster than a line */
const LONGEST_LINE = 8192;

/** the types of disks that are devices, in small letters */
const DEVICE_TYPES = [
  'fulldevice',
  'partitioneddevice',
  'vmfsraw',
  'vmfsrdm',
  'vmfsrawdevicemap',
  'vmfspassthroughrawdevicemap',
];
/** the parentCID of a disk without parent */
const NO_PARENT = 'ffffffff';
const FLAT_TYPES = ['FLAT', 'VMFS'];
const SPARSE_TYPES = ['SPARSE', 'VMFSSPARSE'];
const DEVICE_NAME = /^(?:\/dev\/|\\\\[.?]\\)/;

/**
 * Parses the text of a descriptor that is a file of its own.
 * @throws FusetapError UNSUPPORTED for a variant without driver; FAILED for a text that breaks the rules
 */
export function parseDescriptor(bytes: Uint8Array): Descriptor {
  const lines = linesOf(bytes);
  const { facts, decode } = factsIn(lines);
  const names: string[] = [];
  const indexes = new Map<string, number>();
  const extents = lines
    .filter(isExtentLine)
    .map((line) => parseExtent(line, (name) => indexIn(names, indexes, decode(name))));
  if (extents.length === 0) throw broken('it has no extents');
  const size = extents.reduce((sum, extent) => sum + extent.size, 0);
  if (!Number.isSafeInteger(size)) throw broken('its extents are too large');
  refuseOverlaps(extents, names);
  return { ...facts, extents, names };
}

/**
 * Parses a descriptor that is inside the only extent of its disk. It names this file as it was called once, so the name is not used.
 * @throws as parseDescriptor
 */
export function parseEmbedded(bytes: Uint8Array): Descriptor {
  const lines = linesOf(bytes);
  if (lines[0]?.toLowerCase() !== FIRST_LINE) throw broken('it does not begin with # Disk DescriptorFile');
  const { facts } = factsIn(lines);
  const count = lines.filter(isExtentLine).length;
  if (count > 1) throw unsupported(`of ${count} extents, with its descriptor in one of them`);
  return { ...facts, extents: [], names: [] };
}

/** Where the digits of the content id are in a text, in bytes; null: it states none. */
export function placeOfCid(bytes: Uint8Array): { readonly offset: number; readonly length: number } | null {
  const text = Buffer.from(bytes).toString('latin1');
  const [line, digits] = /^[ \t]*CID[ \t]*=[ \t]*"?([\da-f]{1,8})(?=["\s\0]|$)/im.exec(text) ?? [];
  if (line === undefined || digits === undefined) return null;
  return { offset: text.indexOf(line) + line.length - digits.length, length: digits.length };
}

function factsIn(lines: readonly string[]): {
  readonly facts: Omit<Descriptor, 'extents' | 'names'>;
  readonly decode: (name: string) => string;
} {
  const settings = settingsOf(lines);
  refuseVariants(settings);
  const decode = decoderOf(settings.get('encoding'));
  const facts = {
    isTracked: settings.has('changetrackpath'),
    cid: contentId(settings.get('cid')),
    parent: parentIn(settings, decode),
    createType: settings.get('createtype') ?? null,
    adapterType: settings.get('ddb.adaptertype') ?? null,
  };
  return { facts, decode };
}

function isExtentLine(line: string): boolean {
  const [word = ''] = line.split(/\s/, 1);
  return Object.hasOwn(ACCESS, word);
}

/** A content id in 8 digits. */
function contentId(text: string | undefined): string | null {
  if (text === undefined) return null;
  if (!/^[\da-f]{1,8}$/i.test(text)) throw broken(`the content id ${quoted(text)}`);
  return text.toLowerCase().padStart(8, '0');
}

function parentIn(settings: ReadonlyMap<string, string>, decode: (name: string) => string): Parent | null {
  const cid = contentId(settings.get('parentcid')) ?? NO_PARENT;
  const name = settings.get('parentfilenamehint');
  if (cid === NO_PARENT && name === undefined) return null;
  if (cid === NO_PARENT) throw broken('it names a parent, and does not have its content id');
  if (name === undefined || name === '') throw broken('it has a parent, and does not name it');
  return { cid, name: decode(name) };
}

/** The lines, one character for each byte. NULs may follow the text. */
function linesOf(bytes: Uint8Array): string[] {
  const end = bytes.indexOf(0);
  const text = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1');
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const bad = lines.find((line) => line.length > LONGEST_LINE || line.includes('\r'));
  if (bad !== undefined) throw broken(`a line of ${bad.length} characters`);
  return lines;
}

/** The settings, with their names in small letters. The first one counts. */
function settingsOf(lines: readonly string[]): Map<string, string> {
  const settings = new Map<string, string>();
  for (const line of lines) {
    const equals = line.indexOf('=');
    const name = line.slice(0, Math.max(0, equals)).trim();
    const value = /^"?([^"]*)"?$/.exec(line.slice(equals + 1).trim())?.[1];
    if (!SETTING_NAME.test(name) || value === undefined) continue;
    const key = name.toLowerCase();
    if (!settings.has(key)) settings.set(key, value);
  }
  return settings;
}

function refuseVariants(settings: ReadonlyMap<string, string>): void {
  const version = settings.get('version') ?? '1';
  if (!/^[123]$/.test(version)) throw unsupported(`of version ${quoted(version)}`);
  const encrypted = [...settings.keys()].some((name) => name.startsWith('encryption'));
  if (encrypted) throw unsupported('that is encrypted');
  const type = settings.get('createtype') ?? '';
  if (DEVICE_TYPES.includes(type.toLowerCase())) throw unsupported(`on a device (${escapeControls(type)})`);
}

function parseExtent(line: string, indexOf: (name: string) => number): Extent {
  const [, access, sectors, type, name, start = '0', rest = ''] = EXTENT_LINE.exec(line) ?? [];
  if (access === undefined || sectors === undefined || type === undefined) throw broken(`the extent ${quoted(line)}`);
  const isSparse = SPARSE_TYPES.includes(type);
  if (!isSparse && !FLAT_TYPES.includes(type) && type !== 'ZERO') throw otherType(type);
  const size = bytesOf(sectors, line);
  if (size === 0) throw broken(`an extent without sectors: ${quoted(line)}`);
  const common = { access: ACCESS[access as keyof typeof ACCESS], type, size };
  if (type === 'ZERO') return { ...common, place: null };
  if (name !== undefined && DEVICE_NAME.test(name)) throw unsupported(`on a device (${quoted(name)})`);
  if (name === undefined || name === '' || rest.trim() !== '') throw broken(`the extent ${quoted(line)}`);
  if (common.access === 'none') return { ...common, place: null };
  const from = bytesOf(start, line);
  if (isSparse && from !== 0) throw broken(`a sparse extent does not begin in its file: ${quoted(line)}`);
  return { ...common, place: { file: indexOf(name), start: from, isSparse } };
}

function otherType(type: string): Error {
  if (type === 'VMFSRAW' || type === 'VMFSRDM') return unsupported(`on a device (${type})`);
  return unsupported(`with extents of type ${type === 'SESPARSE' ? type : quoted(type)}`);
}

function bytesOf(sectors: string, line: string): number {
  const bytes = Number(sectors) * SECTOR_BYTES;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw broken(`a number is too large: ${quoted(line)}`);
}

/** Names are UTF-8 if they can be, whatever the descriptor says: the files were copied from a system that had another. */
function decoderOf(encoding: string | undefined): (name: string) => string {
  return (name) => {
    const bytes = Buffer.from(name, 'latin1');
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return decodeAs(encoding ?? 'utf-8', bytes);
    }
  };
}

function decodeAs(encoding: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw broken(`a name is not text in the encoding ${quoted(encoding)}`);
  }
}

function indexIn(names: string[], indexes: Map<string, number>, name: string): number {
  const known = indexes.get(name);
  if (known !== undefined) return known;
  indexes.set(name, names.length);
  return names.push(name) - 1;
}

/** Two extents must not be the same bytes. */
function refuseOverlaps(extents: readonly Extent[], names: readonly string[]): void {
  const ends = new Map<number, number>();
  const placed = extents.flatMap(({ place, size }) => (place === null ? [] : [{ ...place, size }]));
  for (const { file, start, size } of placed.sort((a, b) => a.start - b.start)) {
    if (start < (ends.get(file) ?? 0)) throw broken(`extents overlap in ${quoted(names[file] ?? '')}`);
    ends.set(file, start + size);
  }
}
