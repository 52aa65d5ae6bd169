/** The ways to serve a disk: each kind of disk by threads, and with passthrough if the kernel can do that. */
import type { NodeSpec } from '../../../drivers/graph.js';

export interface Way {
  readonly driver: string;
  readonly passthrough: 'on' | 'off';
  /** in how many files the disk lies; default: 1 */
  readonly files?: number;
}

export const WAYS = [
  { driver: 'aio', passthrough: 'off' },
  { driver: 'sync', passthrough: 'off' },
  { driver: 'ram', passthrough: 'off' },
  { driver: 'ram', passthrough: 'on' },
  { driver: 'aio', passthrough: 'on' },
] as const satisfies readonly Way[];

/** Disks that are more than a driver over a file: a map, and segments in several files. */
export const TREES: readonly Way[] = [
  { driver: 'snapshot', passthrough: 'off' },
  { driver: 'concat', passthrough: 'off', files: 3 },
];

/** The files of a disk, for its image. */
export function filesOfWay({ files = 1 }: Way, image: string): string[] {
  return files === 1 ? [image] : Array.from({ length: files }, (_, i) => `${image}.${i}`);
}

/** What an attach request says of the disk. */
export function diskOfWay(way: Way, image: string): { driver: string; image: string } | { disk: NodeSpec } {
  const { driver, files = 1 } = way;
  if (files === 1) return { driver, image };
  const parts = filesOfWay(way, image).map((file, i) => [`part${i}`, { file }] as const);
  return { disk: { driver, options: {}, on: Object.fromEntries(parts) } };
}
