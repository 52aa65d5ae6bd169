/**
 * Tells a new server of all vbds before it begins to read, and a second time of the changes since the first.
 *
 * If anything fails for a vbd, only that vbd breaks: its file stays, its I/O fails with EIO, and the log and `show`
 * tell why. Each new server tries it again. A disk that has killed three servers in a row when it was opened is not
 * opened again until an upgrade brings other code.
 *
 * A server that cannot load code of fusetap is no evidence against a vbd: another server is started in its place.
 */
import { FusetapError, isCodeMissing } from '../../drivers/errors.js';
import { within } from '../../system/within.js';
import { logEvent } from '../runtime/log.js';
import { isServerDeath, type ServerProcess } from './supervision/server-process.js';
import type { ReplayChoice } from './supervision/supervisor.js';
import type { BusParts } from './vbds/bus-parts.js';
import type { Vbd } from './vbds/vbd.js';
import { filesOf } from './vbds/vbd-files.js';
import { vbdFacts } from './vbds/vbd-report.js';
import { attachCommand, showCommand } from './verbs/attach.js';

/** how many servers may die while they open one disk */
const DEATH_LIMIT = 3;
/** the next disk is opened after this time, even if this one is not open yet */
const TURN_MS = 1_000;
/** the longest time in which a server that still works installs a broken disk */
const BREAKING_LIMIT_MS = 10_000;

/** The state of a vbd that may change between the two times. */
type ToldState = Pick<Vbd, 'paused' | 'source' | 'partitions' | 'size' | 'remeasure'> & {
  /** one for each of its files */
  readonly leaving: readonly boolean[];
  /** of the images that it only reads: drivers do not find out themselves what a commit has changed */
  readonly readBytes: string;
  /** see KeptDisk */
  readonly keptVersion: number;
};

/** What a server has been told. */
interface Knowledge {
  readonly told: Map<Vbd, ToldState>;
  /** why a disk could not be opened again */
  readonly broken: Map<Vbd, string>;
}

export class Replay {
  readonly #limitMs: number;
  readonly #known = new WeakMap<ServerProcess, Knowledge>();
  /** how many servers in a row died while they opened it */
  readonly #deaths = new WeakMap<Vbd, number>();

  /** @param limitMs how long opening a disk may take */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** @throws FusetapError if the server dies; FAILED if a vbd breaks although `strict` forbids it */
  async to(server: ServerProcess, bus: BusParts, { strict, retry }: ReplayChoice): Promise<void> {
    const known = this.#knownBy(server);
    await this.#takeBack(server, bus, known);
    const underWay = new Set<Vbd>();
    const replays: Promise<void>[] = [];
    try {
      for (const vbd of bus.vbds.all()) {
        // it may have been detached since the loop began: its descriptors are closed then
        if (known.told.has(vbd) || !bus.vbds.has(vbd)) continue;
        const why = retry ? null : this.#whyNotTried(vbd);
        underWay.add(vbd);
        const replayed = new VbdReplay(server, bus, vbd, known).run(why, strict, this.#limitMs);
        replays.push(replayed.then(() => void underWay.delete(vbd)));
        await waitForTurn(replays.at(-1) as Promise<void>);
      }
      await Promise.all(replays);
    } catch (error) {
      if (isServerDeath(error)) for (const vbd of underWay) this.#deaths.set(vbd, (this.#deaths.get(vbd) ?? 0) + 1);
      throw error;
    }
  }

  /** A server was installed: records and logs which vbds it could not open. */
  inPlace(server: ServerProcess, bus: BusParts): void {
    const { broken } = this.#knownBy(server);
    for (const vbd of bus.vbds.all()) {
      const reason = broken.get(vbd) ?? null;
      if (reason === null) this.#deaths.delete(vbd);
      if (reason === vbd.broken) continue;
      vbd.broken = reason;
      logEvent(reason === null ? { event: 'mended', vdev: vbd.vdev } : { event: 'broken', vdev: vbd.vdev, reason });
    }
  }

  #knownBy(server: ServerProcess): Knowledge {
    const known = this.#known.get(server) ?? { told: new Map(), broken: new Map() };
    this.#known.set(server, known);
    return known;
  }

  /** Detaches the vbds that are gone, or have changed, since the server was told of them. */
  async #takeBack(server: ServerProcess, bus: BusParts, { told, broken }: Knowledge): Promise<void> {
    for (const [vbd, was] of told) {
      if (bus.vbds.has(vbd) && isAsTold(vbd, was)) continue;
      told.delete(vbd);
      broken.delete(vbd);
      await server
        .request<'detach'>({ op: 'detach', nodeId: vbd.nodeId, isUnused: true }, { limitMs: this.#limitMs })
        .catch(unlessDeath);
    }
  }

  #whyNotTried(vbd: Vbd): string | null {
    const deaths = this.#deaths.get(vbd) ?? 0;
    return deaths < DEATH_LIMIT ? null : `${deaths} servers died while they opened it`;
  }
}

/** Tells one server of one vbd. */
class VbdReplay {
  readonly #server: ServerProcess;
  readonly #bus: BusParts;
  readonly #vbd: Vbd;
  readonly #known: Knowledge;

  constructor(server: ServerProcess, bus: BusParts, vbd: Vbd, known: Knowledge) {
    this.#server = server;
    this.#bus = bus;
    this.#vbd = vbd;
    this.#known = known;
  }

  /** @param whyNot why the disk is not opened; null to open it */
  async run(whyNot: string | null, strict: boolean, limitMs: number): Promise<void> {
    const vbd = this.#vbd;
    const { paused, source, partitions, size, remeasure } = vbd;
    const read = { readBytes: readBytesOf(vbd), remeasure };
    const keptVersion = source.kept?.version ?? 0;
    this.#known.told.set(vbd, { leaving: leavingOf(vbd), paused, source, partitions, size, keptVersion, ...read });
    try {
      const reason = whyNot ?? (await this.#open(limitMs));
      if (reason === null) return;
      if (strict && vbd.broken === null) throw wouldBreak(vbd, reason);
      this.#known.broken.set(vbd, reason);
      await this.#putBroken(reason);
    } catch (error) {
      if (this.#bus.vbds.has(vbd)) throw error;
      unlessDeath(error);
      this.#known.told.delete(vbd);
    }
  }

  /** @returns why the disk could not be opened; null if it is open and its files are shown */
  async #open(limitMs: number): Promise<string | null> {
    const vbd = this.#vbd;
    try {
      await vbd.remeasure?.();
      const { broken } = await this.#server.request<'attach'>(attachCommand(vbd, this.#bus.memories), { limitMs });
      if (broken !== null) return broken;
      await this.#server.request<'show'>(showCommand(vbd, vbdFacts(this.#bus, vbd), true), { limitMs });
      return null;
    } catch (error) {
      unlessDeath(error);
      if (isCodeMissing(error)) throw error;
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Installs a disk that answers EIO for the vbd. If even that fails, the server does not work any more. */
  async #putBroken(reason: string): Promise<void> {
    const vbd = this.#vbd;
    const { nodeId } = vbd;
    const limitMs = BREAKING_LIMIT_MS;
    await this.#server.request<'detach'>({ op: 'detach', nodeId }, { limitMs }).catch(unlessDeath);
    await this.#server.request<'attach'>({ ...attachCommand(vbd, this.#bus.memories), broken: reason }, { limitMs });
    await this.#server.request<'show'>(showCommand(vbd, vbdFacts(this.#bus, vbd), true), { limitMs });
  }
}

function unlessDeath(error: unknown): void {
  if (isServerDeath(error)) throw error;
}

/** Resolves when it is done, or when the next one need not wait any longer. */
async function waitForTurn(replayed: Promise<void>): Promise<void> {
  // an error that comes later is thrown when the caller waits for all
  replayed.catch(() => {});
  await within(replayed, TURN_MS, undefined);
}

function wouldBreak({ vdev }: Vbd, reason: string): FusetapError {
  return new FusetapError('FAILED', `a new server cannot open ${vdev}: ${reason}`, {
    hint: `fix that, or detach ${vdev}; the old server keeps running`,
    operation: 'upgrade',
  });
}

function isAsTold(vbd: Vbd, was: ToldState): boolean {
  if (vbd.paused !== was.paused || vbd.source !== was.source || vbd.size !== was.size) return false;
  if ((vbd.source.kept?.version ?? 0) !== was.keptVersion) return false;
  // the old server has written its base until it died
  const isWritten = vbd.remeasure !== undefined || was.remeasure !== undefined;
  if (isWritten || readBytesOf(vbd) !== was.readBytes) return false;
  return vbd.partitions === was.partitions && leavingOf(vbd).every((leaving, i) => leaving === was.leaving[i]);
}

function readBytesOf({ source }: Vbd): string {
  return [...source.files.values()].flatMap(({ image, mode }) => (mode === 'r' ? [image.sizeBytes] : [])).join(' ');
}

function leavingOf(vbd: Vbd): boolean[] {
  return filesOf(vbd).map(({ leaving }) => leaving);
}
