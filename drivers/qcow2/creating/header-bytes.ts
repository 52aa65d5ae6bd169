/** The first cluster of a new image: the header, its extensions, and the name of the backing file. */
import type { NewImage } from '../../creating/creator.js';
import { FusetapError } from '../../errors.js';
import { EXTENSION } from '../format/extensions.js';
import { KNOWN_FEATURES } from '../format/features.js';
import { COMPRESSION, HEADER_BYTES, INCOMPATIBLE, MAGIC } from '../format/header.js';
import type { NewShape } from './new-shape.js';

const MOST_NAME_BYTES = 1023;
const FEATURE_NAME_BYTES = 48;
const KINDS = ['incompatible', 'compatible', 'autoclear'] as const;

/** Where the tables of a new image are. */
export interface NewTables {
  readonly l1Place: number;
  readonly refcountPlace: number;
  readonly refcountClusters: number;
}

/** @throws FusetapError USAGE if the name of the backing file does not fit */
export function headerBytes(shape: NewShape, { backing }: Pick<NewImage, 'backing'>, tables: NewTables): Buffer {
  const name = Buffer.from(backing?.name ?? '');
  const end = extension(EXTENSION.end, Buffer.alloc(0));
  const needed = [...(backing === null ? [] : [extension(EXTENSION.backingFormat, Buffer.from(backing.format))]), end];
  const withNames = [...needed.slice(0, -1), extension(EXTENSION.featureNames, featureNames()), end];
  const room = shape.clusterBytes - HEADER_BYTES - name.length;
  // small clusters may have no room for the names of features
  const extensions = lengthOf(withNames) <= room ? withNames : needed;
  if (name.length > MOST_NAME_BYTES || lengthOf(extensions) > room) {
    throw new FusetapError('USAGE', `the name of the backing file has ${name.length} bytes, which do not fit`, {
      hint: 'use a shorter path, or larger clusters',
    });
  }
  const header = Buffer.alloc(HEADER_BYTES);
  putHeader(header, shape, tables);
  if (backing !== null) {
    header.writeBigUInt64BE(BigInt(HEADER_BYTES + lengthOf(extensions)), 8);
    header.writeUInt32BE(name.length, 16);
  }
  return Buffer.concat([header, ...extensions, name]);
}

function putHeader(header: Buffer, shape: NewShape, { l1Place, refcountPlace, refcountClusters }: NewTables): void {
  const isZstd = shape.compression === 'zstd';
  header.writeUInt32BE(MAGIC, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(shape.clusterBits, 20);
  header.writeBigUInt64BE(BigInt(shape.size), 24);
  header.writeUInt32BE(shape.l1Entries, 36);
  header.writeBigUInt64BE(BigInt(l1Place), 40);
  header.writeBigUInt64BE(BigInt(refcountPlace), 48);
  header.writeUInt32BE(refcountClusters, 56);
  const features = (isZstd ? INCOMPATIBLE.compression : 0n) | (shape.hasExtendedL2 ? INCOMPATIBLE.extendedL2 : 0n);
  header.writeBigUInt64BE(features, 72);
  header.writeUInt32BE(shape.refcountOrder, 96);
  header.writeUInt32BE(HEADER_BYTES, 100);
  header.writeUInt8(isZstd ? COMPRESSION.zstd : COMPRESSION.deflate, 104);
}

function extension(type: number, data: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + Math.ceil(data.length / 8) * 8);
  bytes.writeUInt32BE(type, 0);
  bytes.writeUInt32BE(data.length, 4);
  data.copy(bytes, 8);
  return bytes;
}

function lengthOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}

function featureNames(): Buffer {
  const bytes = Buffer.alloc(KNOWN_FEATURES.length * FEATURE_NAME_BYTES);
  for (const [i, { kind, bit, name }] of KNOWN_FEATURES.entries()) {
    bytes.writeUInt8(KINDS.indexOf(kind), i * FEATURE_NAME_BYTES);
    bytes.writeUInt8(bit, i * FEATURE_NAME_BYTES + 1);
    bytes.write(name, i * FEATURE_NAME_BYTES + 2, 'latin1');
  }
  return bytes;
}
