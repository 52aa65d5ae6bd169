/**
 * The limit for the memory of all ram images of a runtime directory together.
 *
 *      min( 0.8 × memory, 0.8 × the limit of our cgroup and of those above it, MemAvailable + memory of the images )
 *      or FUSETAP_RAM_LIMIT
 *
 * 0.8 is kvmtool's ratio. The memory that the images have already is added to MemAvailable, because it counts as used.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSize } from '../../drivers/parse-size.js';
import { isBelow, isOutOfResources, parseMountinfo } from '../../system/proc.js';

const RATIO = 0.8;

/**
 * The limit in bytes.
 * @param heldBytes the resident bytes of all ram images
 * @throws FusetapError USAGE if FUSETAP_RAM_LIMIT is not a size
 */
export function ramLimitBytes(heldBytes: number, env: NodeJS.ProcessEnv = process.env, read = readText): number {
  const chosen = env.FUSETAP_RAM_LIMIT;
  if (chosen !== undefined && chosen !== '') return parseSize(chosen, 'FUSETAP_RAM_LIMIT');
  const memory = parseMeminfo(read('/proc/meminfo') ?? '');
  const limits = [
    RATIO * memory.totalBytes,
    memory.availableBytes + heldBytes,
    ...cgroupLimits(read).map((limit) => RATIO * limit),
  ];
  return Math.floor(Math.min(...limits));
}

/** The values of /proc/meminfo in bytes; Infinity for a missing field. */
export function parseMeminfo(text: string): { totalBytes: number; availableBytes: number } {
  const field = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1];
    return kib === undefined ? Number.POSITIVE_INFINITY : Number(kib) * 1024;
  };
  return { totalBytes: field('MemTotal'), availableBytes: field('MemAvailable') };
}

/**
 * The limits of our memory cgroup and of each visible cgroup above it, versions 1 and 2; empty if there is no limit.
 */
export function cgroupLimits(read: (path: string) => string | null): number[] {
  const mounts = parseMountinfo(read('/proc/self/mountinfo') ?? '');
  const lines = (read('/proc/self/cgroup') ?? '').split('\n');
  // cgroups(7): ID:CONTROLLERS:PATH; version 2 has no controllers there
  const groups = lines.flatMap((line) => {
    const [, controllers, ...path] = line.split(':');
    if (controllers === undefined) return [];
    if (controllers === '') return [{ type: 'cgroup2', file: 'memory.max', path: path.join(':') }];
    const isMemory = controllers.split(',').includes('memory');
    return isMemory ? [{ type: 'cgroup', file: 'memory.limit_in_bytes', path: path.join(':') }] : [];
  });
  return groups.flatMap(({ type, file, path }) =>
    mounts
      .filter((mount) => mount.type === type)
      .flatMap(({ mountpoint, root }) => upwards(mountpoint, relativeTo(root, path)))
      .flatMap((directory) => parseLimitFile(read(join(directory, file)))),
  );
}

/**
 * A container's mount shows only its part of the tree, but the path of its cgroup may start at the top of the host's.
 */
function relativeTo(root: string, path: string): string {
  if (root === '/' || !isBelow(path, root)) return path;
  return path.slice(root.length) || '/';
}

function upwards(mountpoint: string, path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return Array.from({ length: parts.length + 1 }, (_, i) => join(mountpoint, ...parts.slice(0, parts.length - i)));
}

/** `max` means no limit. The huge default of version 1 is above any memory size, so it has no effect. */
function parseLimitFile(text: string | null): number[] {
  const limit = Number(text?.trim() || Number.NaN);
  return Number.isFinite(limit) ? [limit] : [];
}

const lastTexts = new Map<string, string>();

/**
 * If a file cannot be read for lack of descriptors or memory, its last contents are used: else the limit would vanish.
 */
function readText(path: string): string | null {
  try {
    const text = readFileSync(path, 'utf8');
    lastTexts.set(path, text);
    return text;
  } catch (error) {
    return isOutOfResources(error) ? (lastTexts.get(path) ?? null) : null;
  }
}
