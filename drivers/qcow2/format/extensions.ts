/** The extensions of a qcow2 header: type 4, length 4, data padded to 8; they end with type 0 or where their space ends. */
import { broken } from '../../formats/faults.js';

const TYPE = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  encryption: 0x0537be77,
  dataFile: 0x44415441,
} as const;
export const EXTENSION = TYPE;

const FEATURE_NAME_BYTES = 48;
const KINDS = ['incompatible', 'compatible', 'autoclear'] as const;
const MOST_NAME_BYTES = 1023;

export interface FeatureName {
  readonly kind: (typeof KINDS)[number];
  readonly bit: number;
  readonly name: string;
}

export interface Extensions {
  /** the format of the backing file, as QEMU calls it */
  readonly backingFormat: string | null;
  readonly featureNames: readonly FeatureName[];
  readonly bitmaps: {
    readonly count: number;
    readonly directoryBytes: bigint;
    readonly directoryOffset: bigint;
  } | null;
  readonly encryption: boolean;
  readonly dataFile: string | null;
}

/** @param bytes from the end of the header to the name of the backing file, or to the end of the first cluster */
export function parseExtensions(bytes: Buffer): Extensions {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 8 <= bytes.length; ) {
    const type = bytes.readUInt32BE(at);
    const length = bytes.readUInt32BE(at + 4);
    if (type === TYPE.end) break;
    if (length > bytes.length - at - 8) {
      throw broken('qcow2 image', `an extension of its header has ${length} bytes, which do not fit`);
    }
    found.set(type, bytes.subarray(at + 8, at + 8 + length));
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return {
    backingFormat: textOf(found.get(TYPE.backingFormat), 'format of its backing file'),
    featureNames: featureNames(found.get(TYPE.featureNames)),
    bitmaps: bitmapsOf(found.get(TYPE.bitmaps)),
    encryption: found.has(TYPE.encryption),
    dataFile: textOf(found.get(TYPE.dataFile), 'name of its data file'),
  };
}

function textOf(bytes: Buffer | undefined, what: string): string | null {
  if (bytes === undefined) return null;
  if (bytes.length > MOST_NAME_BYTES) throw broken('qcow2 image', `the ${what} has ${bytes.length} bytes`);
  return bytes.toString('utf8');
}

function featureNames(bytes: Buffer | undefined): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; bytes !== undefined && at + FEATURE_NAME_BYTES <= bytes.length; at += FEATURE_NAME_BYTES) {
    const kind = KINDS[bytes.readUInt8(at)];
    const name = bytes.toString('latin1', at + 2, at + FEATURE_NAME_BYTES).replace(/\0.*$/s, '');
    if (kind !== undefined) names.push({ kind, bit: bytes.readUInt8(at + 1), name });
  }
  return names;
}

function bitmapsOf(bytes: Buffer | undefined): Extensions['bitmaps'] {
  if (bytes === undefined) return null;
  if (bytes.length < 24) throw broken('qcow2 image', `its list of bitmaps has ${bytes.length} bytes`);
  return {
    count: bytes.readUInt32BE(0),
    directoryBytes: bytes.readBigUInt64BE(8),
    directoryOffset: bytes.readBigUInt64BE(16),
  };
}
