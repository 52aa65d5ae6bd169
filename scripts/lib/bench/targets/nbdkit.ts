/** nbdkit's file plugin behind nbdfuse: NBD over a Unix socket, then FUSE. */
import { access, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInstalled } from '../command.js';
import { isMounted, startDaemon, unmountFuse, waitUntilReady } from '../daemon.js';
import type { Target } from './target.js';

export const nbdkit = {
  name: 'nbdkit',
  description: 'nbdkit file, mounted by nbdfuse',
  noLoop: 'nbdfuse(1) warns that a loop device on it may deadlock',

  async findMissing() {
    for (const program of ['nbdkit', 'nbdfuse', 'fusermount3']) {
      if (!(await isInstalled(program))) return `${program} is not installed`;
    }
    return null;
  },

  async start({ imagePath, sizeBytes, directory, undo }) {
    const socket = join(directory, 'socket');
    const server = startDaemon('nbdkit', ['--foreground', '--unix', socket, 'file', imagePath], undo);
    await waitUntilReady('nbdkit', server, () => exists(socket));
    const path = join(directory, 'disk');
    await writeFile(path, '');
    const mount = startDaemon('nbdfuse', [path, '--unix', socket], undo);
    // this is undone before nbdfuse is ended: it must not be killed while it is mounted
    undo.defer(() => unmountFuse(path));
    await waitUntilReady(
      'nbdfuse',
      mount,
      async () => (await isMounted(path)) && (await stat(path)).size === sizeBytes,
    );
    const stop = async (): Promise<void> => {
      await unmountFuse(path);
      await mount.end(null);
      await server.end('SIGTERM');
    };
    return { path, pids: [server.pid, mount.pid], stop };
  },
} satisfies Target;

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
