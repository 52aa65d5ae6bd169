/** qemu-storage-daemon's FUSE export: the most similar program, and the baseline. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled, runCommand } from '../command.js';
import { isMounted, startDaemon, unmountFuse, waitUntilReady } from '../daemon.js';
import { makeShape, SHAPES, type Shape, shapes } from './formats.js';
import type { Place, Served, Target } from './target.js';

const USUAL = 'qemu-storage-daemon';
/** what --qemu names; null: nothing */
let given: string | null = null;

/** Makes a target of another qemu-storage-daemon, for example of a newer QEMU. @param program its path */
export function giveQemu(program: string): void {
  given = program;
}

interface Variant {
  readonly program?: string;
  /** an image of a format; default: raw */
  readonly shape?: Shape;
  /** past the page cache, by io_uring */
  readonly isDirect?: boolean;
}

// in its key=value lists, a comma is written as two commas
const escapeCommas = (path: string): string => path.replaceAll(',', ',,');

async function missingIn(program: string): Promise<string | null> {
  if (!(await isInstalled(program))) return `${program} is not installed`;
  const help = await runCommand(program, ['--help']);
  return help.includes('type=]fuse') ? null : `${program} is built without FUSE exports`;
}

const findMissing = (): Promise<string | null> => missingIn(USUAL);

async function start({ program = USUAL, shape, isDirect = false }: Variant, place: Place): Promise<Served> {
  const { directory, sizeBytes, undo } = place;
  const image = shape === undefined ? place.imagePath : await makeShape(shape, place);
  // the export is mounted over a regular file
  const path = join(directory, 'disk');
  await writeFile(path, '');
  undo.defer(() => unmountFuse(path));
  const direct = isDirect ? ',cache.direct=on,aio=io_uring' : '';
  const file = `driver=file,filename=${escapeCommas(image)}${direct}`;
  const driver = shape === undefined ? 'raw' : SHAPES[shape].format;
  const format = shape === undefined ? [] : ['--blockdev', `driver=${driver},file=f,discard=unmap,node-name=n`];
  const args = [
    ...['--blockdev', `${file},node-name=${shape === undefined ? 'n' : 'f'}`, ...format],
    '--export',
    `type=fuse,id=e,node-name=n,mountpoint=${escapeCommas(path)},writable=on`,
  ];
  const daemon = startDaemon(program, args, undo);
  await waitUntilReady(program, daemon, async () => (await isMounted(path)) && (await stat(path)).size === sizeBytes);
  return { path, pids: [daemon.pid], stop: () => daemon.end('SIGTERM') };
}

export const qemu = {
  name: 'qemu',
  description: `FUSE export of ${USUAL}`,
  findMissing,
  start: (place) => start({}, place),
} satisfies Target;

/** The same export otherwise. */
export const otherQemus: readonly Target[] = [
  {
    name: 'qemu-given',
    description: 'the same of another QEMU, which --qemu names',
    findMissing: async () =>
      given === null ? 'give the path of its qemu-storage-daemon with --qemu' : missingIn(given),
    start: (place) => start({ program: given ?? USUAL }, place),
  },
  {
    name: 'qemu-direct',
    description: 'the same past the page cache, with io_uring',
    findMissing,
    start: (place) => start({ isDirect: true }, place),
  },
];

/** The same export of images of formats. */
export const qemuFormats: readonly Target[] = shapes.map((shape) => ({
  name: `qemu-${shape}`,
  description: `${SHAPES[shape].is}, by the same export`,
  findMissing,
  start: (place) => start({ shape }, place),
}));
