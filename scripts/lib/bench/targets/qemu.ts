/** qemu-storage-daemon's FUSE export: the most similar program, and the baseline. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, runCommand } from '../command.js';
import { isMounted, startDaemon, unmountFuse, waitUntilReady } from '../daemon.js';
import type { Target } from './target.js';

const PROGRAM = 'qemu-storage-daemon';
// in its key=value lists, a comma is written as two commas
const escapeCommas = (path: string): string => path.replaceAll(',', ',,');

export const qemu = {
  name: 'qemu',
  description: `FUSE export of ${PROGRAM}`,

  async findMissing() {
    if (!(await isInstalled(PROGRAM))) return `${PROGRAM} is not installed`;
    const help = await runCommand(PROGRAM, ['--help']);
    return help.includes('type=]fuse') ? null : `${PROGRAM} is built without FUSE exports`;
  },

  async start({ imagePath, sizeBytes, directory, undo }) {
    // the export is mounted over a regular file
    const path = join(directory, 'disk');
    await writeFile(path, '');
    undo.defer(() => unmountFuse(path));
    const args = [
      '--blockdev',
      `driver=file,filename=${escapeCommas(imagePath)},node-name=n`,
      '--export',
      `type=fuse,id=e,node-name=n,mountpoint=${escapeCommas(path)},writable=on`,
    ];
    const daemon = startDaemon(PROGRAM, args, undo);
    await waitUntilReady(PROGRAM, daemon, async () => (await isMounted(path)) && (await stat(path)).size === sizeBytes);
    return { path, pids: [daemon.pid], stop: () => daemon.end('SIGTERM') };
  },
} satisfies Target;
