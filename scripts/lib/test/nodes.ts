/**
 * The versions of Node that are tested, one for each major that "engines" in package.json allows. The Node that runs the
 * tests stands for its own major. The others come from npm packages, and stay in a cache of the user:
 *
 *     scripts/setup --nodes ──► ~/.cache/fusetap/node/22.23.5-x64/node
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A version of Node, and where it is. */
export interface TestedNode {
  readonly version: string;
  /** of the packages node-linux-ARCH, by architecture as Node names it, in the form of npm's lock files */
  readonly integrity: Readonly<Record<string, string>>;
}

export const TESTED_NODES: readonly TestedNode[] = [
  {
    version: '20.20.2',
    integrity: {
      x64: 'sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==',
      arm64: 'sha512-LCXJnNTFiyGuYBw2gZSI5OBFMbkjAPt8sqD/NKrWoE2QmDgSubTqFng6GaNJ9EJ8HpxBMGcWWpbbcs4Vo+CnGg==',
    },
  },
  {
    version: '22.23.5',
    integrity: {
      x64: 'sha512-3jhC+wcoWxKZxcRqF2sUSl0c9HEXFnur/nuIPx6O6CWKV0jOUWQm7Htw5SuXqqlMCEhi0cJqybFPEb5hhcBiMw==',
      arm64: 'sha512-e1LOUGKVruPGuLVutn8+Cgm5pI1APm4Kvh+zbb/qe/ZpD9s+TQby5iUgZOWmPpbSKpj0Td8DP1N0NEnXasHizg==',
    },
  },
  {
    version: '24.22.3',
    integrity: {
      x64: 'sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==',
      arm64: 'sha512-IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw==',
    },
  },
];

/** The tested versions of other majors than the Node that runs this, as far as there are packages for this machine. */
export function otherNodes(): TestedNode[] {
  const others = TESTED_NODES.filter(({ version }) => majorOf(version) !== majorOf(process.versions.node));
  return others.filter(({ integrity }) => integrity[process.arch] !== undefined);
}

export const majorOf = (version: string): string => version.split('.')[0] ?? '';

/** The path of its program, which need not exist. */
export function programOf({ version }: TestedNode): string {
  return join(cacheDirectory(), `${version}-${process.arch}`, 'node');
}

function cacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'fusetap/node');
}

/**
 * Fetches a version from the npm registry, if it is not there.
 * @throws Error if npm fails, or if the package is not the one that was tested
 */
export async function fetchNode(node: TestedNode): Promise<void> {
  const target = programOf(node);
  if (existsSync(target)) return;
  await mkdir(cacheDirectory(), { recursive: true });
  const scratch = await mkdtemp(join(cacheDirectory(), 'fetch-'));
  try {
    const words = ['pack', `node-linux-${process.arch}@${node.version}`, '--pack-destination', scratch, '--silent'];
    const { stdout } = await run('npm', words, { cwd: scratch });
    const file = join(scratch, stdout.trim());
    const found = `sha512-${createHash('sha512')
      .update(await readFile(file))
      .digest('base64')}`;
    const integrity = node.integrity[process.arch];
    if (found !== integrity) throw new Error(`its package has the integrity ${found}, not ${integrity}`);
    await run('tar', ['-xzf', file, '-C', scratch, '--strip-components=2', 'package/bin/node']);
    await mkdir(join(target, '..'), { recursive: true });
    await rename(join(scratch, 'node'), target);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
