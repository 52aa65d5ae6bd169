/**
 * The formats in which new images can be made. A new format needs a creator and a line here; help, completion and docs use
 * this list.
 *
 * Cheap to import, also for the command line: the code is loaded only when `load` is called.
 */
import { formatsWithDriver } from '../formats/qemu-names.js';
import type { Creator } from './creator.js';

export interface CreatorFacts {
  load(): Promise<{ readonly default: Creator }>;
  /** the formats of backing files, as QEMU calls them; empty: the image has none */
  readonly backingFormats: readonly string[];
  /** what each option can be, as QEMU calls them; for help and completion */
  readonly options: Readonly<Record<string, readonly string[]>>;
}

/** by the name that QEMU gives the format, but vhd, which QEMU calls vpc */
const CREATORS = {
  raw: {
    load: () => import('./raw.js'),
    backingFormats: [],
    options: { preallocation: ['off', 'falloc'] },
  },
  qcow2: {
    load: () => import('../qcow2/create.js'),
    backingFormats: formatsWithDriver,
    options: {
      cluster_size: ['64K', '512', '1K', '2K', '4K', '8K', '16K', '32K', '128K', '256K', '512K', '1M', '2M'],
      preallocation: ['off', 'metadata', 'falloc'],
      compression_type: ['zlib', 'zstd'],
      extended_l2: ['off', 'on'],
      refcount_bits: ['16', '1', '2', '4', '8', '32', '64'],
      compat: ['1.1'],
      lazy_refcounts: ['off'],
    },
  },
  vdi: {
    load: () => import('../vdi/create.js'),
    backingFormats: [],
    options: { static: ['off', 'on'] },
  },
  vhd: {
    load: () => import('../vhd/create.js'),
    backingFormats: ['raw', 'vpc'],
    options: { subformat: ['dynamic', 'fixed'] },
  },
  vmdk: {
    load: () => import('../vmdk/create.js'),
    backingFormats: ['vmdk'],
    options: { zeroed_grain: ['off', 'on'] },
  },
} satisfies Record<string, CreatorFacts>;

export const createdFormats: readonly string[] = Object.keys(CREATORS);

/** The facts about a format; undefined if images of it cannot be made. */
export function creatorOf(format: string): CreatorFacts | undefined {
  return Object.hasOwn(CREATORS, format) ? CREATORS[format as keyof typeof CREATORS] : undefined;
}
