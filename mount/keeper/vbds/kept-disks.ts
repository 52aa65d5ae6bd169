/**
 * What drivers of remote disks keep in the keeper, for the next server: facts, and descriptors of a socket and a memory.
 * Also whether such a disk can be reached now.
 */
import { closeAll } from '../../../drivers/close-fd.js';
import type { ConnectionState, Json } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { hasUnflushed } from '../../../drivers/kept-head.js';
import type { Reconnecting } from '../../control/interface.js';
import { logEvent } from '../../runtime/log.js';
import type { KeptNode, KeptRef } from '../../server/commands.js';
import type { Holdings } from './holdings.js';

/** a command that names replaced descriptors may still be on its way to a server */
const CLOSE_AFTER_MS = 10_000;

export class KeptDisk {
  readonly id: number;
  readonly claim: KeptRef['claim'];
  readonly #nodes = new Map<string, { facts: Json; fds: readonly number[] }>();
  /** grows with each change of what is kept */
  version = 0;
  reconnecting: Reconnecting | null = null;
  /** why its requests fail, and will go on to fail; null: they do not */
  broken: string | null = null;

  /** nothing is ever flushed to it: it need not be reached when its vbd goes away */
  readonly isOnlyRead: boolean;

  constructor(id: number, claim: KeptRef['claim'], isOnlyRead: boolean) {
    this.id = id;
    this.claim = claim;
    this.isOnlyRead = isOnlyRead;
  }

  get ref(): KeptRef {
    return { id: this.id, claim: this.claim, nodes: Object.fromEntries(this.#nodes) };
  }

  /** Whether acknowledged writes may not be durable; null if its drivers do not tell. */
  get isUnflushed(): boolean | null {
    const each = [...this.#nodes.values()].map(({ fds: [memory] }) =>
      memory === undefined ? null : hasUnflushed(memory),
    );
    return each.includes(true) ? true : each.includes(null) ? null : false;
  }

  keep({ node, facts }: KeptNode, fds: readonly number[]): void {
    const old = this.#nodes.get(node)?.fds ?? [];
    this.#nodes.set(node, { facts, fds });
    this.version += 1;
    setTimeout(() => void closeAll([...old]), CLOSE_AFTER_MS).unref();
  }

  end(): void {
    for (const { fds } of this.#nodes.values()) void closeAll([...fds]);
    this.#nodes.clear();
  }
}

export class KeptDisks {
  readonly #disks = new Map<number, KeptDisk>();
  #nextId = 1;

  /** Makes a place for what the drivers of a disk keep; the holdings own it. */
  begin(holdings: Holdings, claim: KeptRef['claim'], isOnlyRead: boolean): KeptDisk {
    const disk = new KeptDisk(this.#nextId++, claim, isOnlyRead);
    this.#disks.set(disk.id, disk);
    holdings.own('what its driver keeps', () => {
      this.#disks.delete(disk.id);
      disk.end();
    });
    return disk;
  }

  /** Keeps what a server has sent. The descriptors belong to this object. @throws FusetapError if the disk is gone */
  keep(kept: KeptNode, fds: readonly number[]): void {
    const disk = this.#disks.get(kept.keptId);
    if (disk !== undefined) return disk.keep(kept, fds);
    void closeAll([...fds]);
    throw new FusetapError('NOT_FOUND', 'the disk is not attached any more');
  }

  find(keptId: number): KeptDisk | undefined {
    return this.#disks.get(keptId);
  }

  /** @returns the disk whose state has changed; undefined if it is gone */
  told(keptId: number, state: ConnectionState): KeptDisk | undefined {
    const disk = this.#disks.get(keptId);
    if (disk === undefined) return undefined;
    const { reconnecting } = disk;
    disk.reconnecting =
      state.is === 'reconnecting'
        ? { since: reconnecting?.since ?? new Date().toISOString(), reason: state.reason }
        : null;
    disk.broken = state.is === 'broken' ? state.reason : null;
    return disk;
  }

  /** Another server was installed: it tells the state anew. */
  forgetStates(): void {
    for (const disk of this.#disks.values()) {
      disk.reconnecting = null;
      disk.broken = null;
    }
  }
}

/** @throws FusetapError BUSY if the disk of a vbd cannot be reached: its last flush would wait for it */
export function mustBeConnected(vbd: {
  readonly vdev: string;
  readonly source: { readonly kept: KeptDisk | null };
}): void {
  const { kept } = vbd.source;
  if (kept === null || kept.reconnecting === null || kept.isOnlyRead) return;
  const { reconnecting } = kept;
  throw new FusetapError('BUSY', `${vbd.vdev} is reconnecting since ${reconnecting.since}: ${reconnecting.reason}`, {
    hint: 'wait until the other end is back; --force makes its requests fail, and may lose writes',
  });
}

/** Notes and logs that a remote disk can be reached, or not any more. */
export function tellConnection({ kept, vbds }: ToldBus, keptId: number, state: ConnectionState): void {
  const before = kept.find(keptId)?.reconnecting ?? null;
  const disk = kept.told(keptId, state);
  const vdev = vbds.all().find(({ source }) => source.kept !== null && source.kept === disk)?.vdev;
  if (vdev === undefined) return;
  if (state.is === 'broken') return logEvent({ event: 'broken', vdev, reason: state.reason });
  if (state.is === 'reconnecting') return logEvent({ event: 'reconnecting', vdev, reason: state.reason });
  const sinceMs = before === null ? Date.now() : Date.parse(before.since);
  logEvent({ event: 'reconnected', vdev, seconds: Math.round((Date.now() - sinceMs) / 100) / 10 });
}

interface ToldBus {
  readonly kept: KeptDisks;
  readonly vbds: { all(): { readonly vdev: string; readonly source: { readonly kept: KeptDisk | null } }[] };
}
