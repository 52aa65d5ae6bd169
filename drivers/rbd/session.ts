/**
 * The clients of a disk, one after the other: each server has its own. Requests wait while there is none.
 *
 *      first attach: connect, open, look who else writes, take the lock; or fail
 *      after a takeover: connect and open at once; at the first request fence the client of the dead server, and take its
 *              lock. That is tried again, after 0.1, 0.2, 0.5, 1, 2, then every 5 s, until it works
 *      another client has the image ─► broken: all requests fail, and nothing is tried again
 *
 * A cluster that does not answer needs no attempts of ours: librados sends its requests again, and each OSD knows which of
 * them it has done. "Images in a Ceph cluster" in docs/architecture.md has the reasons.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Librbd } from '../../system/librbd.js';
import type { Host, Json } from '../driver.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { inputOutputError, reasonOf } from '../remote/faults.js';
import { Cluster } from './cluster.js';
import { type Client, ClusterError, type OpenedImage } from './cluster-calls.js';
import { ESHUTDOWN, hasShrunk, requestError, shortReason, Taken } from './faults.js';
import { type DiskFacts, HELD, type KeptFacts, type KeptState } from './kept-state.js';
import { Requests } from './requests.js';
import { Silence } from './silence.js';
import { imageName, type RbdAddress } from './uri.js';

const PAUSES_MS = [100, 200, 500, 1_000, 2_000, 5_000];
/** a takeover that takes longer is shown as reconnecting */
const QUIET_MS = 2_000;
/** a close that takes longer goes on behind: all that was acknowledged is durable */
const CLOSE_MS = 5_000;
/** EROFS: another client has the lock, and keeps it */
const LOCKED = -30;

export interface SessionWish {
  readonly library: Librbd;
  readonly address: RbdAddress;
  readonly state: KeptState;
  readonly host: Host | undefined;
  readonly readOnly: boolean;
  /** mode w!: others may write, too */
  readonly isShared: boolean;
}

/** A client that has opened the image. */
interface Link {
  readonly client: Client;
  readonly opened: OpenedImage;
  readonly requests: Requests;
  /** it has asked for the lock, and may get it later */
  hasAsked: boolean;
}

type Told = 'connected' | 'reconnecting' | 'broken';

export class Session {
  readonly #wish: SessionWish;
  readonly #cluster = new Cluster();
  readonly #silence: Silence;
  #facts: DiskFacts | null;
  /** of the clients that must be fenced before anything is written */
  #old: readonly string[];
  #link: Link | null = null;
  /** of the image when it was last looked at; requests never go beyond the size at attach */
  #imageSize = Number.MAX_SAFE_INTEGER;
  #isLooking = false;
  #beginning: Promise<DiskFacts> | null = null;
  #linking: Promise<Requests> | null = null;
  /** for the first attempt after a takeover: null if it has failed, or was used */
  #early: Promise<Link | null> | null;
  /** it has written what it holds: until then that is what the client before it holds */
  #hasClaimed = false;
  #told: Told = 'connected';
  /** why all requests fail; null: they do not */
  #refusal: Error | null = null;
  readonly #closing = new AbortController();
  readonly #givenUp = new AbortController();

  /** @param earlier what the server before has kept; null: this is the first attach */
  constructor(wish: SessionWish, earlier: KeptFacts | null) {
    this.#wish = wish;
    this.#facts = earlier;
    this.#old = earlier?.addresses ?? [];
    // takes no lock, and changes nothing: the server before may still write
    this.#early = earlier === null ? null : this.#open().catch(() => null);
    this.#silence = new Silence({
      look: () => ({ count: this.#link?.requests.count ?? 0, ended: this.#link?.requests.ended ?? 0 }),
      silent: (seconds) => this.#tellReconnecting(`the Ceph cluster has not answered for ${seconds} s`),
      heard: () => this.#tellConnected(),
      everySecond: () => this.#lookAtSize(),
    });
  }

  /** Connects for the first time. @throws ClusterError, FusetapError BUSY and others; nothing stays open then */
  begin(): Promise<DiskFacts> {
    this.#beginning = this.#begin();
    return this.#unlessGivenUp(this.#beginning);
  }

  async #begin(): Promise<DiskFacts> {
    const link = await this.#open();
    try {
      this.#facts = factsOf(link.opened);
      this.#closing.signal.throwIfAborted();
      await this.#keep([link.client.address]);
      if (!this.#wish.readOnly) await this.#takeLockFirst(link);
      this.#closing.signal.throwIfAborted();
    } catch (error) {
      await this.#disconnect(link);
      throw error;
    }
    this.#link = link;
    return this.#facts;
  }

  /** Where requests go; waits for it. */
  requests(): Promise<Requests> | Requests {
    if (this.#refusal !== null) throw this.#refusal;
    this.#silence.begin();
    if (this.#link !== null) return this.#link.requests;
    this.#linking ??= this.#takeOver().finally(() => {
      this.#linking = null;
    });
    return this.#unlessGivenUp(this.#linking);
  }

  /** Waits for work that goes on behind if the disk is given up. */
  #unlessGivenUp<Result>(work: Promise<Result>): Promise<Result> {
    const { signal } = this.#closing;
    return new Promise((resolve, reject) => {
      if (signal.aborted) reject(signal.reason);
      const giveUp = (): void => reject(signal.reason);
      signal.addEventListener('abort', giveUp, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
    });
  }

  /** @param result what librbd returns @throws FusetapError if it is an error */
  check(result: number): number {
    if (result >= 0) return result;
    if (result === -ESHUTDOWN || result === LOCKED) this.#breakDown(new Taken('another client has taken the image'));
    throw this.#refusal ?? requestError(result);
  }

  /**
   * Throws if a part of the disk up to `end` is not in the image any more. librbd itself only cuts a request at the end of an
   * image that has shrunk.
   */
  checkEnd(end: number): void {
    if (end > this.#imageSize) throw hasShrunk();
  }

  /** Asks how large the image is now. @param end of the part of the disk that it must have */
  async checkSize(end = this.#facts?.size ?? 0): Promise<void> {
    await this.requests();
    await this.#unlessGivenUp(this.#askSize());
    this.checkEnd(end);
  }

  async #askSize(): Promise<void> {
    const { opened } = this.#link as Link;
    this.#imageSize = await this.#cluster.call('size', opened.image);
  }

  /** Who shrinks an image that is in use does not tell us. */
  #lookAtSize(): void {
    if (this.#link === null || this.#isLooking) return;
    this.#isLooking = true;
    this.#askSize()
      .catch(() => {})
      .finally(() => {
        this.#isLooking = false;
      });
  }

  /** Runs of data in the range: see data in cluster-calls.ts. */
  async data(offset: number, length: number): Promise<number[]> {
    await this.requests();
    const { opened } = this.#link as Link;
    return await this.#unlessGivenUp(this.#cluster.call('data', { image: opened.image, offset, length }));
  }

  // ── connecting ────────────────────────────────────────────────────────────────────────────────────────────────────────

  async #open(): Promise<Link> {
    const { library, address, readOnly } = this.#wish;
    const { image: name, snapshot } = address;
    const client = await this.#cluster.call('connect', address);
    try {
      const opened = await this.#cluster.call('open', { io: client.io, name, snapshot, readOnly });
      try {
        if (opened.unsafe !== null) throw unsafe(address, opened.unsafe);
        return { client, opened, requests: new Requests(library, opened.image), hasAsked: false };
      } catch (error) {
        await this.#cluster.call('close', opened.image).catch(() => {});
        throw error;
      }
    } catch (error) {
      await this.#cluster.call('disconnect', client).catch(() => {});
      throw error;
    }
  }

  /** @returns whether all that it has sent is done, and its lock is released */
  async #disconnect({ client, opened, requests }: Link): Promise<boolean> {
    requests.beginClosing();
    const { state } = this.#wish;
    // this process may die between the release of the lock and the next line
    if (this.#hasClaimed) state.held = HELD.asking;
    const error = await this.#cluster.call('close', opened.image).then(
      () => null,
      (reason: unknown) => reason,
    );
    // if it was not librbd that failed, the image may still be open, and use the memory of its requests
    if (error === null || error instanceof ClusterError) requests.end();
    // an earlier client may still have the lock
    if (error === null && this.#hasClaimed && this.#old.length === 0) state.held = HELD.nothing;
    await this.#cluster.call('disconnect', client).catch(() => {});
    return error === null;
  }

  async #keep(addresses: readonly string[]): Promise<void> {
    const { host, state } = this.#wish;
    await host?.keep({ ...(this.#facts as DiskFacts), addresses: [...addresses] } satisfies KeptFacts & Json, [
      state.fd,
    ]);
  }

  /** @throws FusetapError BUSY, UNSUPPORTED */
  async #takeLockFirst(link: Link): Promise<void> {
    const { client, opened } = link;
    const { address, isShared, state } = this.#wish;
    this.#hasClaimed = true;
    if (isShared) {
      state.held = HELD.open;
      return;
    }
    if (!opened.hasLock) throw hasNoLock(address);
    const { image } = opened;
    const owners = await this.#cluster.call('owners', image);
    const watchers = await this.#cluster.call('watchers', image);
    // an owner that does not watch is dead, and librbd breaks its lock: the cluster forgets a dead watcher after 30 s
    const others = [...new Set(watchers)].filter((each) => each !== client.address);
    if (others.length > 0) throw isBusy(address, owners, others);
    const result = await this.#acquire(link);
    if (result === LOCKED) throw isBusy(address, await this.#cluster.call('owners', image), []);
    if (result < 0) throw requestError(result);
    state.held = HELD.lock;
  }

  /** @returns 0, or a negative errno */
  #acquire(link: Link): Promise<number> {
    link.hasAsked = true;
    this.#wish.state.held = HELD.asking;
    return this.#cluster.call('acquire', link.opened.image);
  }

  /** Tries until there is a client. @throws if the image is another client's now; when the session is closed */
  async #takeOver(): Promise<Requests> {
    const { signal } = this.#closing;
    this.#wish.state.takeOver();
    const slow = setTimeout(() => this.#tellReconnecting('the Ceph cluster does not answer'), QUIET_MS);
    try {
      for (let tries = 0; ; tries++) {
        try {
          const link = await this.#openAgain();
          if (signal.aborted) await this.#disconnect(link);
          signal.throwIfAborted();
          this.#link = link;
          this.#tellConnected();
          return link.requests;
        } catch (error) {
          if (signal.aborted) throw this.#refusal ?? error;
          // a call of it was answered for good: see check
          if (this.#refusal !== null) throw this.#refusal;
          if (error instanceof Taken) throw this.#breakDown(error);
          this.#tellReconnecting(shortReason(error));
        }
        await delay(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)], undefined, { signal }).catch(() => {});
        if (signal.aborted) throw this.#refusal ?? new Error('the disk is closed');
      }
    } finally {
      clearTimeout(slow);
    }
  }

  async #openAgain(): Promise<Link> {
    const early = this.#early;
    this.#early = null;
    const link = (await early) ?? (await this.#open());
    try {
      this.#mustBeSame(link.opened);
      this.#imageSize = link.opened.size;
      if (!this.#wish.readOnly) await this.#takeLockOver(link);
      return link;
    } catch (error) {
      const isClosed = await this.#disconnect(link);
      // the next attempt must not take it for a stranger
      if (!isClosed || link.hasAsked) this.#old = [...this.#old, link.client.address];
      throw error;
    }
  }

  /** @throws Taken if the server before, or this one, must not serve the image any more */
  #mustBeSame({ id, snapshotId, hasLock }: OpenedImage): void {
    const { state, readOnly, isShared } = this.#wish;
    const before = this.#facts;
    if (state.held === HELD.fenced) throw new Taken('another client has taken the image');
    if (id !== before?.id) throw new Taken('the image was removed, and another one has its name');
    if (snapshotId !== (before.snapshotId ?? snapshotId))
      throw new Taken('the snapshot was removed, and another one has its name');
    if (readOnly || isShared || hasLock) return;
    throw new Taken('its exclusive lock was disabled, so another client may have written the image');
  }

  /** Fences the clients before this one, and takes their lock. Until it is done, the next server must do the same. */
  async #takeLockOver(link: Link): Promise<void> {
    const { client, opened } = link;
    const { state, isShared } = this.#wish;
    await this.#keep([...this.#old, client.address]);
    if (state.held !== HELD.nothing) await this.#fence(client, opened);
    this.#hasClaimed = true;
    if (isShared) state.held = HELD.open;
    else {
      const result = await this.#acquire(link);
      if (result === LOCKED) throw new Taken('another client has taken the image');
      this.check(result);
      state.held = HELD.lock;
    }
    this.#old = [];
    await this.#keep([client.address]);
  }

  async #fence({ cluster }: Client, { image, hasLock }: OpenedImage): Promise<void> {
    const { state, isShared } = this.#wish;
    // an image without the feature has none to ask for
    const owners = hasLock ? await this.#cluster.call('owners', image) : [];
    const owner = owners.find((each) => this.#old.includes(each)) ?? null;
    const stranger = owners.find((each) => !this.#old.includes(each)) ?? null;
    if (!isShared && stranger !== null) throw new Taken(`another client has taken the image: ${stranger}`);
    if (state.held === HELD.lock && owner === null) {
      throw new Taken('another client has broken the lock of the image');
    }
    // from now on it may be this disk that has broken it, also if it fails or dies before it has the lock
    if (!isShared) state.held = HELD.asking;
    await this.#cluster.call('fence', { cluster, image, addresses: this.#old, owner });
  }

  // ── states ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #tellReconnecting(reason: string): void {
    if (this.#told !== 'connected' || this.#closing.signal.aborted) return;
    this.#told = 'reconnecting';
    this.#wish.host?.told({ is: 'reconnecting', reason });
  }

  #tellConnected(): void {
    if (this.#told !== 'reconnecting') return;
    this.#told = 'connected';
    this.#wish.host?.told({ is: 'connected' });
  }

  #breakDown(error: Error): Error {
    if (this.#refusal !== null) return this.#refusal;
    const reason = `fenced: ${reasonOf(error)}`;
    this.#refusal = inputOutputError(reason);
    this.#told = 'broken';
    this.#wish.state.held = HELD.fenced;
    this.#wish.host?.told({ is: 'broken', reason });
    return this.#refusal;
  }

  /** Fails all requests, now and later: the disk is going away, although the cluster does not answer. */
  giveUp(): void {
    this.#refusal ??= inputOutputError('the disk was given up while the Ceph cluster did not answer');
    this.#closing.abort(this.#refusal);
    this.#link?.requests.giveUp(this.#refusal);
    this.#givenUp.abort();
  }

  /**
   * Releases the lock and disconnects. If the disk was given up, or that takes longer than CLOSE_MS, it goes on behind, as
   * soon as the cluster answers.
   * @param ended is called when it is done
   */
  async close(ended: () => Promise<void>): Promise<void> {
    this.#silence.end();
    this.#closing.abort(new Error('the disk is closed'));
    const ending = this.#end().finally(ended);
    const { signal } = this.#givenUp;
    const late = new AbortController();
    const patience = delay(CLOSE_MS, undefined, { signal: AbortSignal.any([signal, late.signal]) }).catch(() => {});
    ending.catch(() => {});
    await Promise.race([ending, patience]).finally(() => late.abort());
  }

  async #end(): Promise<void> {
    await this.#beginning?.catch(() => {});
    await this.#linking?.catch(() => {});
    const link = this.#link ?? (await this.#early);
    this.#link = null;
    if (link !== null) await this.#disconnect(link);
    await this.#cluster.end();
  }
}

function factsOf({ size, id, snapshotId, hasExtents }: OpenedImage): DiskFacts {
  return { size, id, snapshotId, hasExtents };
}

function unsafe(address: RbdAddress, setting: string): FusetapError {
  const image = quoted(imageName(address));
  return new FusetapError('UNSUPPORTED', `${image}: its own configuration sets ${setting}, so writes could be lost`, {
    hint: `rbd config image rm ${image} ${setting}, or the same for its pool`,
  });
}

function hasNoLock(address: RbdAddress): FusetapError {
  const image = quoted(imageName(address));
  return new FusetapError('UNSUPPORTED', `${image} has no exclusive lock, so another client could write it, too`, {
    hint: `rbd feature enable ${image} exclusive-lock; mode w! takes no lock`,
  });
}

function isBusy(address: RbdAddress, owners: readonly string[], others: readonly string[]): FusetapError {
  const image = quoted(imageName(address));
  const [owner] = owners;
  const who = owner === undefined ? `${image} is open elsewhere` : `${image} is locked by the client ${owner}`;
  const watching = others.filter((each) => each !== owner);
  const seen = watching.length === 0 ? '' : `; watched by ${watching.join(', ')}`;
  return new FusetapError('BUSY', `${who}${seen}`, {
    hint: 'detach it there; if that machine is dead, wait for 30 s; rbd status shows its clients; mode w! takes no lock',
  });
}
