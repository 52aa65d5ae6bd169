/** An image on a FUSE file system that another program serves, so that it can hang or die: qemu-storage-daemon's export. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mountOn } from '../../../../system/proc.js';
import { runCommand } from '../../bench/command.js';
import { eventually } from './bus.js';
import type { Stage } from './stage.js';

export const REMOTE_BYTES = 4 << 20;
const READY_MS = 20_000;

export class RemoteImage {
  readonly path: string;
  readonly #child: ChildProcess;

  private constructor(path: string, child: ChildProcess) {
    this.path = path;
    this.#child = child;
  }

  /** @throws Error if the program does not serve */
  static async serve(stage: Stage, name: string): Promise<RemoteImage> {
    const back = await stage.image(`${name}-back.img`, REMOTE_BYTES);
    const path = join(stage.directory, 'images', `${name}.img`);
    await writeFile(path, '');
    stage.person.give(path);
    const words = [
      ...['--blockdev', `driver=file,node-name=f,filename=${back},locking=off`],
      ...['--export', `type=fuse,id=e,node-name=f,mountpoint=${path},writable=on`],
    ];
    const child = spawn('qemu-storage-daemon', words, {
      ...{ stdio: ['ignore', 'ignore', 'pipe'], cwd: '/', detached: true },
      ...stage.person.spawnOptions,
    });
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.on('error', (error) => {
      said += error.message;
    });
    const image = new RemoteImage(path, child);
    stage.undo.defer(() => image.die());
    const isServed = async (): Promise<boolean> => {
      if (child.exitCode !== null) throw new Error(`qemu-storage-daemon does not export by FUSE: ${said.trim()}`);
      return (await mountOn(path)) !== undefined;
    };
    await eventually(`qemu-storage-daemon exports ${path}: ${said}`, READY_MS, isServed);
    return image;
  }

  hang(): void {
    this.#child.kill('SIGSTOP');
  }

  goOn(): void {
    this.#child.kill('SIGCONT');
  }

  /** Kills the program that serves it; the dead mount stays. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await eventually(
      'qemu-storage-daemon ends',
      READY_MS,
      () => this.#child.exitCode !== null || this.#child.signalCode !== null,
    );
  }

  /** Ends it, and unmounts. */
  async die(): Promise<void> {
    await this.kill();
    const isMounted = (await mountOn(this.path)) !== undefined;
    if (isMounted) await runCommand('umount', ['-l', this.path]);
  }
}
