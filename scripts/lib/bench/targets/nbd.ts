/**
 * Disks that a program reaches by NBD itself: fio has a client of its own. This compares servers, without FUSE on the side of
 * the client:
 *
 *      fio ── unix socket ──► nbdkit, qemu-nbd ──► image
 *                         └─► fusetap export ──► vbd ──► image
 */
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled } from '../command.js';
import { startDaemon, waitUntilReady } from '../daemon.js';
import { attachWords, fusetapTargets, MAIN } from './fusetap.js';
import type { Place, Served, Target } from './target.js';

const noLoop = 'it is no file';

const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

const uriOf = (socket: string): string => `nbd+unix:///?socket=${encodeURIComponent(socket)}`;

/** A server that opens the image. @param words its arguments, after the image and the socket are known */
function server(program: string, description: string, words: (socket: string, image: string) => string[]): Target {
  return {
    name: `nbd-${program}`,
    description,
    noLoop,
    findMissing: async () => ((await isInstalled(program)) ? null : `${program} is not installed`),
    async start({ imagePath, directory, undo }) {
      const socket = join(directory, 'socket');
      const daemon = startDaemon(program, words(socket, imagePath), undo);
      await waitUntilReady(program, daemon, () => isThere(socket));
      return { path: uriOf(socket), pids: [daemon.pid], stop: () => daemon.end('SIGTERM') };
    },
  };
}

/** Two servers of the file of a vbd that another target attaches: ours and nbdkit. */
function serversOf(word: string, vbd: string): Target[] {
  const inner = fusetapTargets.find(({ name }) => name === vbd);
  if (inner === undefined) throw new TypeError(`no target ${vbd}`);
  const shared = { noLoop, ...(inner.holdsImageInMemory && { holdsImageInMemory: true }) };
  return [
    {
      ...shared,
      name: `export-${word}`,
      description: `fusetap export of ${vbd}`,
      findMissing: () => inner.findMissing(),
      start: async (place) => await startExport(await inner.start(place), place),
    },
    {
      ...shared,
      name: `nbdkit-${word}`,
      description: `nbdkit file on ${vbd}`,
      findMissing: async () => (await nbdkit.findMissing()) ?? (await inner.findMissing()),
      start: async (place) => {
        const attached = await inner.start(place);
        const { path, pids, stop } = await nbdkit.start({ ...place, imagePath: attached.path });
        return { path, pids: [...pids, ...attached.pids], stop: () => stop().then(() => attached.stop()) };
      },
    },
  ];
}

async function startExport(attached: Served, { directory, undo }: Place): Promise<Served> {
  const socket = join(directory, 'socket');
  const environment = ['-u', 'FUSETAP_BUS', `FUSETAP_RUNTIME_DIR=${join(directory, 'runtime')}`];
  const command = [process.execPath, MAIN, 'export', attached.path, '--socket', socket];
  const daemon = startDaemon('env', [...environment, ...command], undo);
  await waitUntilReady('fusetap export', daemon, () => isThere(socket));
  const children = await readFile(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'utf8');
  const exporter = children.trim().split(' ').map(Number);
  const stop = async (): Promise<void> => {
    await daemon.end('SIGTERM');
    await attached.stop();
  };
  return { path: uriOf(socket), pids: [...exporter, ...attached.pids], stop };
}

const nbdkit = server('nbdkit', 'nbdkit file, by NBD', (socket, image) => ['-f', '-U', socket, 'file', image]);
const qemuNbd = server('qemu-nbd', 'qemu-nbd raw, by NBD', (socket, image) => [
  ...['-t', '-e', '8', '-k', socket, '-f', 'raw'],
  image,
]);

/** The driver nbd, to be compared with nbdfuse (the target nbdkit). */
const driver: Target = {
  name: 'fusetap-nbd',
  description: 'driver nbd over nbdkit file',
  findMissing: () => nbdkit.findMissing(),
  async start(place) {
    const { path: uri, pids, stop } = await nbdkit.start(place);
    const attached = await attachWords([uri], place);
    return { path: attached.path, pids: [...pids, ...attached.pids], stop: () => attached.stop().then(stop) };
  },
};

export const nbdTargets: readonly Target[] = [
  driver,
  nbdkit,
  qemuNbd,
  ...serversOf('aio', 'fusetap-aio'),
  ...serversOf('ram', 'fusetap-ram-passthrough'),
];
