/** Makes a physical volume of LVM2 on a loop device: pvcreate(8) takes no files. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { byBlkid, type Made } from './images.js';

export function withPhysicalVolume(sizeBytes: number): Made {
  const image = join(mkdtempSync(join(process.env.TMPDIR ?? '/tmp', 'pv-')), 'image');
  writeFileSync(image, '');
  truncateSync(image, sizeBytes);
  const loop = execFileSync('losetup', ['--show', '-f', image], { encoding: 'utf8' }).trim();
  try {
    const config = `devices { filter = [ "a|^${loop}$|", "r|.*|" ] use_devicesfile = 0 } global { event_activation = 0 }`;
    execFileSync('pvcreate', ['-q', '-y', '--config', config, loop], { stdio: ['ignore', 'ignore', 'pipe'] });
  } finally {
    execFileSync('losetup', ['-d', loop]);
  }
  return { bytes: readFileSync(image), known: byBlkid(image) };
}
