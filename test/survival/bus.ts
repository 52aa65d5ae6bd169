/**
 * A real bus whose processes are killed, stopped and replaced while clients use it. The test process sends requests
 * only to the control socket; other processes do all I/O on vbds.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import type { NodeSpec } from '../../drivers/graph.js';
import { showBus } from '../../mount/client/ask.js';
import { type BusPlace, resolveBus } from '../../mount/client/index.js';
import { askBus } from '../../mount/control/http-client.js';
import type { AttachRequest, BusInfo, DetachResult, UpgradeResult, VbdInfo } from '../../mount/control/interface.js';
import { KERNEL_ABILITIES } from '../../mount/fuse/event-loop/kernel-transport.js';
import { readLog } from '../../mount/log/read-log.js';
import { eventually } from '../e2e/command.js';
import { type Bench, openBench, type TestTransport } from '../e2e/fixtures.js';
import { kill } from '../e2e/kill-server.js';

/** how long a new server may take to be installed, on a busy machine */
const RESTART_LIMIT_MS = 60_000;

/** What to attach; the defaults are in `attach` below. */
export interface Wish {
  readonly driver: string;
  readonly image: string | null;
  readonly vdev?: string | null;
  readonly mode?: 'r' | 'w' | 'w!';
  readonly passthrough?: 'auto' | 'on' | 'off';
  readonly options?: Record<string, string>;
  readonly filters?: { name: string; value: string }[];
  readonly partitions?: boolean;
}

/** As root, on the default transport. */
export const KERNEL: TestTransport = { name: 'kernel', options: [], abilities: KERNEL_ABILITIES, whyNot: () => false };

/**
 * Starts a bus that stays when it has no vbds. It is stopped after the test.
 * @param env environment of its keeper and servers
 * @param transport its transport, and the user that starts it
 */
export async function startBus(
  t: Test,
  env: Record<string, string> = {},
  name = '0',
  transport: TestTransport = KERNEL,
): Promise<Bus> {
  return startBusOn(await openBench(t, transport), env, name);
}

/** Starts a bus that stays when it has no vbds, as the user and on the transport of the bench. */
export async function startBusOn(bench: Bench, env: Record<string, string> = {}, name = '0'): Promise<Bus> {
  await bench.succeed(['start', ...bench.transport.options, '--bus', name], { env });
  return new Bus(bench, await resolveBus(name, bench.runtimeDir));
}

export class Bus {
  readonly bench: Bench;
  readonly place: BusPlace;

  constructor(bench: Bench, place: BusPlace) {
    this.bench = bench;
    this.place = place;
  }

  info(): Promise<BusInfo> {
    return showBus(this.place, { timeoutMs: 10_000 });
  }

  attach({ driver, image, vdev = null, mode = 'w', options = {}, ...more }: Wish): Promise<VbdInfo> {
    const body = { driver, image, vdev, mode, options, ...more } satisfies AttachRequest;
    return askBus(this.place, { method: 'POST', path: '/vbds', body, timeoutMs: 30_000 });
  }

  /** Attaches a tree of drivers. */
  attachTree(disk: NodeSpec, more: Omit<Wish, 'driver' | 'image' | 'options'> = {}): Promise<VbdInfo> {
    return askBus(this.place, { method: 'POST', path: '/vbds', body: { disk, ...more }, timeoutMs: 30_000 });
  }

  detach(vdev: string, query = ''): Promise<DetachResult> {
    return askBus(this.place, { method: 'DELETE', path: `/vbds/${vdev}${query}`, timeoutMs: 30_000 });
  }

  upgrade(): Promise<UpgradeResult> {
    return askBus(this.place, { method: 'POST', path: '/upgrade', body: {}, timeoutMs: 30_000 });
  }

  ask<Answer>(method: 'GET' | 'POST', path: string): Promise<Answer> {
    return askBus(this.place, { method, path, ...(method === 'POST' && { body: {} }), timeoutMs: 30_000 });
  }

  async serverPid(): Promise<number> {
    const { serverPid, state } = await this.info();
    if (serverPid === null) throw new Error(`the bus has no server: ${state}`);
    return serverPid;
  }

  /** Waits until `restarts` servers were replaced, and the one that runs has answered a client. */
  async settled(restarts: number): Promise<void> {
    await eventually(`server ${restarts + 1} is running`, RESTART_LIMIT_MS, async () => {
      const info = await this.info();
      if (info.state === 'failed') throw new Error('the bus was given up');
      return info.state === 'running' && info.restarts >= restarts;
    });
    await this.poke();
  }

  /** Makes a client send a request to the server. */
  async poke(): Promise<void> {
    await this.bench.execute('stat', ['-f', this.place.path], { timeoutMs: RESTART_LIMIT_MS });
  }

  /** Kills the server and waits for nothing. It may be dead already: a thread that loads late can reach an armed crash first. */
  async beginKill(): Promise<void> {
    const { serverPid } = await this.info();
    if (serverPid !== null) kill(serverPid);
  }

  /** Kills the server with SIGKILL; resolves when the next one has answered a client. */
  async killServer(): Promise<void> {
    const { restarts } = await this.info();
    process.kill(await this.serverPid(), 'SIGKILL');
    await this.settled(restarts + 1);
  }

  /** Kills or upgrades the server `times` times, at random moments. */
  async disturb(times: number, how: 'kill' | 'upgrade'): Promise<void> {
    for (let i = 0; i < times; i++) {
      await delay(Math.random() * 150);
      if (how === 'kill') await this.killServer();
      else await this.upgrade();
    }
  }

  async log(): Promise<string> {
    return readLog(this.place)
      .lines.map(({ text }) => text)
      .join('\n');
  }
}
