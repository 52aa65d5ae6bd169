/** What scripts/xen-trial needs on this machine, checked before anything is begun. */
import { statfs } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { isInstalled } from '../bench/command.js';

const GIB = 2 ** 30;
/** the machine has 5 GiB, QEMU itself needs up to 3 */
const MEMORY_BYTES = 8 * GIB;
/** the dom0's tree, its image, and an overlay of a run */
const DISK_BYTES = 5 * GIB;

/** Programs and the Debian packages that have them. */
const TO_RUN: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  'mkfs.ext4': 'e2fsprogs',
  setpriv: 'util-linux',
  npm: 'npm',
};
const TO_BUILD: Readonly<Record<string, string>> = {
  mmdebstrap: 'mmdebstrap',
  unshare: 'util-linux',
  xz: 'xz-utils',
  gzip: 'gzip',
};

export interface Situation {
  /** the dom0 has to be built first */
  readonly builds: boolean;
  /** where the dom0 is kept */
  readonly cache: string;
  readonly path: string;
}

/** @returns one line for each thing that is missing, with the way to get it */
export async function missing({ builds, cache, path }: Situation): Promise<string[]> {
  const lines: string[] = [];
  for (const [program, debianPackage] of Object.entries({ ...TO_RUN, ...(builds && TO_BUILD) })) {
    if (await isInstalled(program, path)) continue;
    lines.push(`${program} is not installed: apt-get install --no-install-recommends ${debianPackage}`);
  }
  if (process.arch !== 'x64')
    lines.push(`the dom0 is for x86-64: its Node is the one of this machine, which is ${process.arch}`);
  if (totalmem() < MEMORY_BYTES) lines.push('this machine has less than 8 GiB of memory: the emulated one has 5 GiB');
  if (!builds) return lines;
  if (process.getuid?.() !== 0) {
    lines.push(
      'the dom0 is not built yet, and only root can: run it once as root (its tree has owners and device nodes)',
    );
  }
  const { bavail, bsize } = await statfs(cache);
  if (bavail * bsize < DISK_BYTES) lines.push(`${cache} has less than 5 GiB left: the dom0 is built there`);
  return lines;
}
