/**
 * The dom0, built once and kept: node_modules/.cache/xen-trial/NUMBER/, where NUMBER follows from the files that build it.
 * A change of those builds it anew. image/build says what is in there.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { execute } from './steps.js';

export interface Dom0Image {
  /** its directory; see image/build for the files */
  readonly directory: string;
  readonly isBuilt: boolean;
}

/** @param source the directory of these scripts, with image/ in it */
export async function findImage(source: string, cache: string): Promise<Dom0Image> {
  const hash = createHash('sha256');
  for (const name of ['build', 'customize']) hash.update(await readFile(join(source, 'image', name)));
  const directory = join(cache, hash.digest('hex').slice(0, 12));
  return { directory, isBuilt: existsSync(directory) };
}

/** Makes the complete directory, or nothing; removes those of before. */
export async function buildImage({ directory }: Dom0Image, source: string, cache: string, log: string): Promise<void> {
  const fresh = `${directory}.new`;
  for (const name of await readdir(cache)) await rm(join(cache, name), { recursive: true, force: true });
  await mkdir(fresh);
  const { main, security } = mirrorsOf(await execute(TARGETS, log).catch(() => ''));
  await execute([join(source, 'image', 'build'), fresh, main, security], log);
  await rename(fresh, directory);
}

const TARGETS = ['apt-get', 'indextargets', '--format', '$(ORIGIN)|$(LABEL)|$(SITE)', 'Created-By: Packages'];

/** The mirrors of Debian that apt uses on this machine; Debian's own if it uses none. */
export function mirrorsOf(targets: string): { main: string; security: string } {
  const sites = targets.split('\n').map((line) => line.split('|'));
  const siteOf = (label: string): string | undefined => {
    return sites.find((fields) => fields[0] === 'Debian' && fields[1] === label)?.[2];
  };
  return {
    main: siteOf('Debian') ?? 'http://deb.debian.org/debian',
    security: siteOf('Debian-Security') ?? 'http://deb.debian.org/debian-security',
  };
}
