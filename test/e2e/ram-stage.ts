/**
 * What the tests of ram images stand on: a few buses that stay, asked over their control sockets from here, so that an
 * attach costs milliseconds and not a start of Node. What the command line makes of it is tested elsewhere.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { memory } from '../../mount/client/index.js';
import { askBus } from '../../mount/control/http-client.js';
import type {
  AttachRequest,
  AttachResult,
  MemoryInfo,
  SaveResult,
  VbdInfo,
  VbdStats,
} from '../../mount/control/interface.js';
import { until } from '../../system/until.js';
import { type Bus, KERNEL, startBusOn } from '../survival/bus.js';
import { type Bench, openBench, type TestTransport } from './fixtures.js';

export const MIB = 1 << 20;

/**
 * Begins a bus of each name, all at once; cleared away after the test.
 * @param env of their keepers and servers
 * @param transport with which and by whom they are begun
 */
export async function openStage<Name extends string>(
  t: Test,
  names: readonly Name[],
  env: Record<string, string> = {},
  transport: TestTransport = KERNEL,
): Promise<Stage<Name>> {
  const bench = await openBench(t, transport);
  const started = await Promise.all(names.map(async (name) => [name, await startBusOn(bench, env, name)] as const));
  return new Stage(bench, Object.fromEntries(started) as Record<Name, Bus>);
}

export class Stage<Name extends string> {
  readonly bench: Bench;
  readonly bus: Readonly<Record<Name, Bus>>;

  constructor(bench: Bench, bus: Record<Name, Bus>) {
    this.bench = bench;
    this.bus = bus;
  }

  /** Whether the kernel can do the I/O of a vbd by itself, for who runs these buses. */
  get canPassThrough(): boolean {
    return this.bench.transport.abilities.passthrough;
  }

  /** What an attach is told for passthrough, or the nearest to it that who runs these buses can have. */
  get passthrough(): 'on' | 'auto' {
    return this.canPassThrough ? 'on' : 'auto';
  }

  /** What the ram images of all the buses take. */
  memory(): Promise<MemoryInfo> {
    return memory(this.bench.runtimeDir);
  }

  /** What the only ram image holds, in bytes. */
  async residentBytes(): Promise<number> {
    const { images } = await this.memory();
    if (images.length !== 1) throw new Error(`${images.length} ram images where there should be one`);
    return images[0]?.residentBytes ?? Number.NaN;
  }

  /** The links to ram images, also of those that are still being copied. */
  links(): Promise<string[]> {
    return readdir(join(this.bench.runtimeDir, 'ram'));
  }

  /** Nothing is attached any more: no memory is in use, and nothing leads to any. */
  async isEmpty(t: Test): Promise<void> {
    t.match(await this.memory(), { usedBytes: 0, images: [] }, 'no memory is in use');
    // a keeper that was killed leaves its link to its server, which may just be ending
    await until(async () => (await this.links()).length === 0, { timeoutMs: 60_000, everyMs: 200 });
    t.same(await this.links(), [], 'nothing leads to any');
  }

  /** Ends the buses: nothing is left of them. */
  async end(t: Test): Promise<void> {
    await this.bench.succeed(['stop', '--all']);
    t.same(await this.bench.traces(), [], 'nothing is left');
    t.match(await this.memory(), { usedBytes: 0, images: [] }, 'no memory is in use');
  }
}

/** Attaches: driver ram, mode w, where nothing else is said. @param signal aborted: the attach is given up */
export function attach(
  { place }: Bus,
  request: Partial<AttachRequest> & Pick<AttachRequest, 'image'>,
  signal?: AbortSignal,
): Promise<AttachResult> {
  const body: AttachRequest = { driver: 'ram', vdev: null, mode: 'w', options: {}, ...request };
  return askBus(place, { method: 'POST', path: '/vbds', body, signal, timeoutMs: 30_000 });
}

/** Detaches all vbds of some buses. */
export async function detachAll(...buses: readonly Bus[]): Promise<void> {
  for (const bus of buses) {
    for (const { vdev } of (await bus.info()).vbds) await bus.detach(vdev, '?wait=5');
  }
}

/** An image that takes long to copy: a vbd, whose reads wait so long each. */
export function attachSlowly(bus: Bus, image: string, delayMs: number): Promise<VbdInfo> {
  return attach(bus, { driver: 'aio', image, mode: 'r', filters: [{ name: 'delay', value: String(delayMs) }] });
}

export async function statsOf(bus: Bus, vdev: string): Promise<VbdStats> {
  const all = await bus.ask<VbdStats[]>('GET', '/stats');
  const stats = all.find((each) => each.vdev === vdev);
  if (stats === undefined) throw new Error(`no stats of ${vdev}`);
  return stats;
}

export function pause(bus: Bus, vdev: string): Promise<VbdInfo> {
  return bus.ask('POST', `/vbds/${vdev}/pause`);
}

export function resume(bus: Bus, vdev: string): Promise<VbdInfo> {
  return bus.ask('POST', `/vbds/${vdev}/resume`);
}

export function reset(bus: Bus, vdev: string): Promise<VbdInfo> {
  return bus.ask('POST', `/vbds/${vdev}/reset`);
}

/** @param signal aborted: the copy is given up */
export function save(
  { place }: Bus,
  vdev: string,
  path: string,
  { force = false, signal }: { force?: boolean; signal?: AbortSignal } = {},
): Promise<SaveResult> {
  const body = { path, force };
  return askBus(place, { method: 'POST', path: `/vbds/${vdev}/save`, body, signal, timeoutMs: 30_000 });
}
