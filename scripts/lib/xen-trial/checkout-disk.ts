/**
 * The disk that the dom0 has at /usr/local, made at each run: fusetap as users install it, the Node that runs this, and the
 * scenarios.
 */
import { copyFile, cp, mkdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { execute } from './steps.js';

export interface Places {
  /** the checkout */
  readonly root: string;
  /** the directory of these scripts, with dom0/ in it */
  readonly source: string;
  readonly scratch: string;
  readonly log: string;
}

/** @returns the path of the image */
export async function makeCheckoutDisk({ root, source, scratch, log }: Places): Promise<string> {
  const [prefix, disk] = [join(scratch, 'local'), join(scratch, 'local.img')];
  await mkdir(join(prefix, 'bin'), { recursive: true });
  const quiet = ['--loglevel=error', '--ignore-scripts=false'];
  const packed = await execute(['npm', 'pack', ...quiet, '--pack-destination', scratch], log, root);
  const name = packed.trim().split('\n').at(-1) ?? '';
  const install = [
    'npm',
    'install',
    '--loglevel=error',
    '--prefer-offline',
    '--ignore-scripts',
    '--global',
    '--prefix',
    prefix,
  ];
  await execute([...install, join(scratch, name)], log, scratch);
  await copyFile(await realpath(process.execPath), join(prefix, 'bin', 'node'));
  await cp(join(source, 'dom0'), join(prefix, 'xen-trial'), { recursive: true });
  await execute(['mkfs.ext4', '-q', '-d', prefix, disk, '1G'], log);
  return disk;
}
