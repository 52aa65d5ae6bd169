/** The place of scripts/kill-each: a directory with a runtime directory, in which a bus runs. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attach, type BusPlace, detach, resolveBus, showBus, stop } from '../../../mount/client/index.js';
import type { BusInfo } from '../../../mount/control/interface.js';
import { runCommand } from '../bench/command.js';
import type { Undo } from '../bench/undo.js';
import { abortBuses, endProcesses, unmountBelow } from '../torture/second-faults/stage.js';
import type { KillImage } from './images.js';

const CLI = fileURLToPath(new URL('../../../cli/main.cjs', import.meta.url));
const CONTROL_MS = 30_000;
/** all asynchronous file calls of a server are made by one thread: so its calls can be counted */
const ONE_THREAD = { UV_THREADPOOL_SIZE: '1' };

export interface Vbd {
  readonly vdev: string;
  readonly path: string;
}

export class Stage {
  readonly directory: string;
  readonly #place: BusPlace;

  private constructor(directory: string, place: BusPlace) {
    this.directory = directory;
    this.#place = place;
  }

  /** Starts a bus. `undo` removes it, and the directory. */
  static async set(undo: Undo): Promise<Stage> {
    const directory = await mkdtemp(join(tmpdir(), 'fusetap-kill-each-'));
    const runtimeDir = join(directory, 'runtime');
    undo.defer(() => rm(directory, { recursive: true, force: true }));
    undo.defer(() => unmountBelow(directory));
    undo.defer(() => endProcesses(runtimeDir));
    undo.defer(() => abortBuses(directory));
    process.env.FUSETAP_RUNTIME_DIR = runtimeDir;
    const environment = { ...process.env, ...ONE_THREAD };
    await runCommand(process.execPath, [CLI, 'start', '--bus', 'kill-each'], { environment });
    const place = await resolveBus('kill-each', runtimeDir);
    undo.defer(() => stop(place, { force: true }));
    return new Stage(directory, place);
  }

  info(): Promise<BusInfo> {
    return showBus(this.#place, { timeoutMs: CONTROL_MS });
  }

  /** The server that runs. @throws Error if the bus was given up */
  async serverPid(): Promise<number> {
    const deadline = performance.now() + CONTROL_MS;
    for (;;) {
      const { serverPid, state } = await this.info();
      if (state === 'running' && serverPid !== null) return serverPid;
      if (state === 'failed' || performance.now() > deadline) throw new Error(`the bus is ${state}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async attach({ driver, path }: Pick<KillImage, 'driver' | 'path'>): Promise<Vbd> {
    const request = { driver, image: path, options: {}, vdev: null, mode: 'w', raw: true } as const;
    return await attach(this.#place, request);
  }

  /** @throws Error if a flush failed */
  async detach({ vdev }: Vbd): Promise<void> {
    await detach(this.#place, vdev, { waitSeconds: 20 });
  }

  /** Frees the processes that wait for the bus. */
  async abort(): Promise<void> {
    await abortBuses(this.directory);
  }
}
