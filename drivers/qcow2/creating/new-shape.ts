/** What a new qcow2 image is like, from its options. The names are those of `qemu-img create -o`. */
import type { NewImage } from '../../creating/creator.js';
import { chosen, powerOf2, takeOnly } from '../../creating/options.js';
import { FusetapError } from '../../errors.js';
import { parseSize } from '../../parse-size.js';
import {
  l1EntriesFor,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_CLUSTER_BITS,
  MOST_L1_BYTES,
} from '../format/header.js';

const SECTOR = 512;
const OPTIONS = [
  ...['cluster_size', 'preallocation', 'compression_type', 'extended_l2', 'refcount_bits'],
  ...['compat', 'lazy_refcounts'],
] as const;
const DEFAULT_CLUSTER_BYTES = 65_536;

export interface NewShape {
  /** of the disk, in bytes: whole sectors */
  readonly size: number;
  readonly clusterBits: number;
  readonly clusterBytes: number;
  readonly refcountOrder: number;
  readonly hasExtendedL2: boolean;
  readonly compression: 'deflate' | 'zstd';
  readonly preallocation: 'off' | 'metadata' | 'falloc';
  readonly l1Entries: number;
}

/** @throws FusetapError USAGE or UNSUPPORTED for what cannot be made */
export function shapeOf({ size, options, backing }: NewImage): NewShape {
  takeOnly('qcow2', options, OPTIONS);
  checkVersion(options);
  const hasExtendedL2 = chosen(options, 'extended_l2', ['off', 'on']) === 'on';
  const clusterBits = clusterBitsOf(options, hasExtendedL2);
  const refcountBits = options.refcount_bits ?? '16';
  if (!/^\d{1,2}$/.test(refcountBits)) {
    throw new FusetapError('USAGE', `refcount_bits: '${refcountBits}' is not a number`, {
      hint: 'give 1, 2, 4, 8, 16, 32 or 64',
    });
  }
  const preallocation = chosen(options, 'preallocation', ['off', 'metadata', 'falloc']);
  if (preallocation !== 'off' && backing !== null && !hasExtendedL2) {
    throw new FusetapError('USAGE', `preallocation=${preallocation}: it would hide the backing file`, {
      hint: 'omit it, or give extended_l2=on too',
    });
  }
  const clusterBytes = 2 ** clusterBits;
  const rounded = Math.ceil(size / SECTOR) * SECTOR;
  return {
    size: rounded,
    ...{ clusterBits, clusterBytes, hasExtendedL2, preallocation },
    refcountOrder: powerOf2(Number(refcountBits), 'refcount_bits', { least: 1, most: 64 }),
    compression: chosen(options, 'compression_type', ['zlib', 'zstd']) === 'zstd' ? 'zstd' : 'deflate',
    l1Entries: l1EntriesOf(rounded, { clusterBytes, hasExtendedL2 }),
  };
}

function checkVersion(options: NewImage['options']): void {
  if (['0.10', 'v2'].includes(options.compat ?? '')) {
    throw new FusetapError('UNSUPPORTED', `compat=${options.compat}: fusetap cannot write images of version 2`, {
      hint: 'omit compat; or make it with qemu-img create',
    });
  }
  chosen(options, 'compat', ['1.1', 'v3']);
  if (options.lazy_refcounts === 'on') {
    throw new FusetapError('UNSUPPORTED', 'lazy_refcounts=on: fusetap writes refcounts at once, with or without it', {
      hint: 'omit it',
    });
  }
  chosen(options, 'lazy_refcounts', ['off']);
}

function clusterBitsOf({ cluster_size: word }: NewImage['options'], hasExtendedL2: boolean): number {
  const bytes = word === undefined ? DEFAULT_CLUSTER_BYTES : parseSize(word, 'cluster_size');
  const least = 2 ** (hasExtendedL2 ? MIN_EXTENDED_CLUSTER_BITS : MIN_CLUSTER_BITS);
  const name = hasExtendedL2 ? 'cluster_size with extended_l2=on' : 'cluster_size';
  return powerOf2(bytes, name, { least, most: 2 ** MAX_CLUSTER_BITS });
}

function l1EntriesOf(size: number, shape: Pick<NewShape, 'clusterBytes' | 'hasExtendedL2'>): number {
  const entries = l1EntriesFor(size, shape);
  if (Number.isSafeInteger(size) && entries * 8 <= MOST_L1_BYTES) return entries;
  throw new FusetapError('USAGE', `a disk of ${size} bytes is too large for clusters of ${shape.clusterBytes} bytes`, {
    hint: 'give a larger cluster_size, at most 2M',
  });
}
