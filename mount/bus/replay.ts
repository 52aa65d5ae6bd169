/**
 * Tells a server of all vbds: before it begins, and a second time of what has changed since the first.
 */
import { attachCommand, showCommand } from './attach.js';
import type { BusParts } from './bus-parts.js';
import type { ServerProcess } from './server-process.js';
import type { Vbd } from './vbd.js';
import { filesOf } from './vbd-files.js';
import { vbdFacts } from './vbd-report.js';

/** What of a vbd may change between the two. */
type Told = Pick<Vbd, 'paused' | 'memory' | 'image' | 'driver'> & {
  /** of each of its files */
  readonly leaving: readonly boolean[];
};

export class Replay {
  /** what each server knows */
  readonly #told = new WeakMap<ServerProcess, Map<Vbd, Told>>();

  async to(server: ServerProcess, bus: BusParts): Promise<void> {
    const told = this.#told.get(server) ?? new Map<Vbd, Told>();
    this.#told.set(server, told);
    for (const [vbd, was] of told) {
      if (bus.vbds.has(vbd) && isAsTold(vbd, was)) continue;
      told.delete(vbd);
      await server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId });
    }
    for (const vbd of bus.vbds.all()) {
      // it may have been detached since the loop began: what it was made of is closed then
      if (told.has(vbd) || !bus.vbds.has(vbd)) continue;
      told.set(vbd, { leaving: leavingOf(vbd), paused: vbd.paused, ...bytesOf(vbd) });
      try {
        await server.request<'attach'>(attachCommand(vbd, bus.memories));
        await server.request<'show'>(showCommand(vbd, vbdFacts(bus, vbd), true));
      } catch (error) {
        if (bus.vbds.has(vbd)) throw error;
        told.delete(vbd);
      }
    }
  }
}

function isAsTold(vbd: Vbd, was: Told): boolean {
  const isSameLeaving = leavingOf(vbd).every((leaving, i) => leaving === was.leaving[i]);
  const isSameBytes = vbd.memory === was.memory && vbd.image === was.image && vbd.driver === was.driver;
  return isSameLeaving && vbd.paused === was.paused && isSameBytes;
}

/** What a swap changes. */
function bytesOf({ memory, image, driver }: Vbd): Pick<Told, 'memory' | 'image' | 'driver'> {
  return { memory, image, driver };
}

function leavingOf(vbd: Vbd): boolean[] {
  return filesOf(vbd).map(({ leaving }) => leaving);
}
