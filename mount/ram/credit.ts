/**
 * The counterpart of mount/ram/growth.ts: gives threads credit to fill holes of ram images, within the limit, and takes
 * unused credit back. The keeper does it, or its server if the keeper cannot (memory-questions.ts).
 *
 * Granted credit counts as used for all keepers, so that together they never exceed the limit.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_BYTES } from '../../system/page.js';
import type { Ledger } from '../ledger/ledger.js';
import { RECALL_MS } from './ram-images.js';

/** bytes per grant: a question to the keeper takes about a millisecond, copying this many bytes twenty */
const GRANT_BYTES = 64 << 20;
/** credit that is unused for this time is taken back, within twice the time */
const IDLE_MS = 300;
const RECALL_POLL_MS = 50;

/** A ram image, known by its id. */
export interface CreditedRamImage {
  readonly id: string;
}

/** The part of a vbd that is needed here. */
export interface CreditedVbd {
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly memory: CreditedRamImage | null;
}

/** Decides how much ram images may grow; see RamImages. */
export interface Grants {
  grant(memory: CreditedRamImage, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number>;
  areOthersGranted(): boolean;
}

interface Granted {
  givenBytes: number;
  /** false: no more can be had */
  isEnough: boolean;
}

type Credited = CreditedVbd & { readonly memory: CreditedRamImage };

export class RamCredit {
  readonly #ledger: Ledger;
  readonly #grants: Grants;
  readonly #vbds: () => Iterable<CreditedVbd>;
  /** the credit of each file at the last check, by ledger index */
  readonly #seen = new Map<number, number>();
  #timer: NodeJS.Timeout | null = null;
  #answering: Promise<void> = Promise.resolve();

  constructor(ledger: Ledger, memories: Grants, vbds: () => Iterable<CreditedVbd>) {
    this.#ledger = ledger;
    this.#grants = memories;
    this.#vbds = vbds;
  }

  /** A thread asks for more credit; the question is in the ledger. Questions are answered one after the other. */
  wanted(nodeId: number): void {
    this.#inTurn(() => this.#answer(nodeId));
  }

  /** Answers all open questions, because the process that should have answered is gone. */
  wantedByAll(): void {
    for (const { nodeId } of this.#vbds()) if (this.isWaiting(nodeId)) this.wanted(nodeId);
  }

  /** Whether a question of the file has no answer yet. */
  isWaiting(nodeId: number): boolean {
    const vbd = this.#find(nodeId);
    return vbd !== undefined && this.#ledger.creditQuestion(vbd.ledgerIndex) !== null;
  }

  #inTurn(work: () => Promise<void>): void {
    this.#answering = this.#answering.then(work).catch((error: unknown) => console.error(error));
  }

  async #answer(nodeId: number): Promise<void> {
    const vbd = this.#find(nodeId);
    if (vbd === undefined) return;
    const { ledgerIndex } = vbd;
    const question = this.#ledger.creditQuestion(ledgerIndex);
    if (question === null) return;
    const neededBytes = question.pages * PAGE_BYTES;
    const wantedBytes = Math.max(GRANT_BYTES, neededBytes);
    const { givenBytes, isEnough } = await this.#grant(vbd, neededBytes, wantedBytes);
    // detached meanwhile: another file may have its place in the ledger now
    if (this.#find(nodeId) === undefined) return;
    const pages = Math.floor(givenBytes / PAGE_BYTES);
    this.#ledger.giveCredit(ledgerIndex, pages, question.number, !isEnough);
    this.#timer ??= setInterval(() => this.#inTurn(() => this.#takeBackIdle()), IDLE_MS).unref();
  }

  /** Grants less than needed only at the limit: unused credit of others is taken back first. */
  async #grant({ memory, ledgerIndex }: Credited, neededBytes: number, wantedBytes: number): Promise<Granted> {
    const deadline = performance.now() + RECALL_MS;
    let givenBytes = 0;
    const isEnough = async (): Promise<boolean> => {
      const unspentBytes = this.#unspentBytes(memory) + givenBytes;
      const lackingBytes = Math.max(0, neededBytes - givenBytes);
      givenBytes += await this.#grants.grant(memory, unspentBytes, wantedBytes - givenBytes, lackingBytes);
      return givenBytes + Math.max(0, this.#ledger.credit(ledgerIndex)) * PAGE_BYTES >= neededBytes;
    };
    if (await isEnough()) return { givenBytes, isEnough: true };
    await this.#takeBackFromOthers(memory, ledgerIndex);
    for (;;) {
      // check this first: credit that others return after this check is found in the next round
      const mayComeBack = this.#grants.areOthersGranted() && performance.now() < deadline;
      if (await isEnough()) return { givenBytes, isEnough: true };
      if (!mayComeBack) return { givenBytes, isEnough: false };
      await delay(RECALL_POLL_MS);
    }
  }

  /** Takes back unused credit of this keeper's other files. */
  async #takeBackFromOthers(memory: CreditedRamImage, ledgerIndex: number): Promise<void> {
    const memories = new Map<string, CreditedRamImage>();
    for (const other of this.#vbds()) {
      if (other.memory === null || other.ledgerIndex === ledgerIndex) continue;
      this.#ledger.takeBackCredit(other.ledgerIndex);
      memories.set(other.memory.id, other.memory);
    }
    // the image's own unused credit is reported with the next question
    memories.delete(memory.id);
    for (const each of memories.values()) await this.#grants.grant(each, this.#unspentBytes(each), 0, 0);
  }

  #find(nodeId: number): Credited | undefined {
    for (const vbd of this.#vbds()) {
      if (vbd.nodeId === nodeId && vbd.memory !== null) return { ...vbd, memory: vbd.memory };
    }
    return undefined;
  }

  #unspentBytes({ id }: CreditedRamImage): number {
    let pages = 0;
    for (const vbd of this.#vbds()) {
      if (vbd.memory?.id === id) pages += Math.max(0, this.#ledger.credit(vbd.ledgerIndex));
    }
    return pages * PAGE_BYTES;
  }

  async #takeBackIdle(): Promise<void> {
    const memories = new Map<string, CreditedRamImage>();
    let isOpen = false;
    for (const { memory, ledgerIndex } of this.#vbds()) {
      if (memory === null) continue;
      const pages = this.#ledger.credit(ledgerIndex);
      if (pages > 0 && this.#seen.get(ledgerIndex) === pages) this.#ledger.takeBackCredit(ledgerIndex);
      else if (pages > 0) isOpen = true;
      this.#seen.set(ledgerIndex, pages);
      memories.set(memory.id, memory);
    }
    if (!isOpen) this.#stop();
    for (const memory of memories.values()) await this.#grants.grant(memory, this.#unspentBytes(memory), 0, 0);
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#seen.clear();
  }
}
