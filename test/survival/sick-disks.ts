/**
 * An image on a file system that hangs or dies on demand: the program that serves it is stopped or killed.
 */
import type { ChildProcess } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import type { Test } from 'tap';
import { abortBuses, eventually } from '../e2e/command.js';
import type { Bench } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';

/**
 * An image that qemu-storage-daemon serves over FUSE. While the daemon is stopped, the image acts as hung NFS or iSCSI.
 */
export class ServedImage {
  readonly path: string;
  readonly #child: ChildProcess;

  private constructor(path: string, child: ChildProcess) {
    this.path = path;
    this.#child = child;
  }

  static async begin(t: Test, bench: Bench, name: string, sizeBytes: number): Promise<ServedImage> {
    const below = await bench.image(`${name}.below`, sizeBytes);
    const path = await bench.image(name, 0);
    const child = bench.startProgram('qemu-storage-daemon', [
      ...['--blockdev', `driver=file,node-name=f,filename=${below}`],
      ...['--export', `type=fuse,id=e,node-name=f,mountpoint=${path},writable=on`],
    ]);
    const served = new ServedImage(path, child);
    t.teardown(() => served.end(bench));
    await eventually('the image is served', 10_000, async () => (await mountinfo()).includes(` ${path} `));
    return served;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** From now on every request waits. */
  async stop(): Promise<void> {
    await standStill(this.pid);
  }

  goOn(): void {
    this.#child.kill('SIGCONT');
  }

  /** From now on every request gets ENOTCONN. */
  async die(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    this.goOn();
    await gone;
  }

  async end(bench: Bench): Promise<void> {
    // processes that wait there must not be left behind, whatever the test did
    await abortBuses(`${bench.directory}`);
    if (this.#child.exitCode === null && this.#child.signalCode === null) await this.die();
    await bench.try('umount -l "$1" 2>&-', this.path);
  }
}

async function mountinfo(): Promise<string> {
  return readFile('/proc/self/mountinfo', 'utf8');
}

/** Aborts the FUSE connection of the mount at a path, so that waiting processes get an error. */
export async function abortAt(path: string): Promise<void> {
  const line = (await mountinfo()).split('\n').find((text) => text.includes(` ${path} `));
  const minor = line?.split(' ')[2]?.split(':')[1];
  if (minor !== undefined) await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1').catch(() => {});
}
