/** qemu-storage-daemon's FUSE export: the most similar program, and the baseline. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, runCommand } from '../command.js';
import { isMounted, startDaemon, unmountFuse, waitUntilReady } from '../daemon.js';
import { makeShape, SHAPES, type Shape, shapes } from './formats.js';
import type { Place, Served, Target } from './target.js';

const PROGRAM = 'qemu-storage-daemon';
// in its key=value lists, a comma is written as two commas
const escapeCommas = (path: string): string => path.replaceAll(',', ',,');

async function findMissing(): Promise<string | null> {
  if (!(await isInstalled(PROGRAM))) return `${PROGRAM} is not installed`;
  const help = await runCommand(PROGRAM, ['--help']);
  return help.includes('type=]fuse') ? null : `${PROGRAM} is built without FUSE exports`;
}

async function start(shape: Shape | null, place: Place): Promise<Served> {
  const { directory, sizeBytes, undo } = place;
  const image = shape === null ? place.imagePath : await makeShape(shape, place);
  // the export is mounted over a regular file
  const path = join(directory, 'disk');
  await writeFile(path, '');
  undo.defer(() => unmountFuse(path));
  const file = `driver=file,filename=${escapeCommas(image)}`;
  const driver = shape === null ? 'raw' : SHAPES[shape].format;
  const format = shape === null ? [] : ['--blockdev', `driver=${driver},file=f,discard=unmap,node-name=n`];
  const args = [
    ...['--blockdev', `${file},node-name=${shape === null ? 'n' : 'f'}`, ...format],
    '--export',
    `type=fuse,id=e,node-name=n,mountpoint=${escapeCommas(path)},writable=on`,
  ];
  const daemon = startDaemon(PROGRAM, args, undo);
  await waitUntilReady(PROGRAM, daemon, async () => (await isMounted(path)) && (await stat(path)).size === sizeBytes);
  return { path, pids: [daemon.pid], stop: () => daemon.end('SIGTERM') };
}

export const qemu = {
  name: 'qemu',
  description: `FUSE export of ${PROGRAM}`,
  findMissing,
  start: (place) => start(null, place),
} satisfies Target;

/** The same export of images of formats. */
export const qemuFormats: readonly Target[] = shapes.map((shape) => ({
  name: `qemu-${shape}`,
  description: `${SHAPES[shape].is}, by the same export`,
  findMissing,
  start: (place) => start(shape, place),
}));
