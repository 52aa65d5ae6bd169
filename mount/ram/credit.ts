/**
 * The other half of mount/ram/growth.ts: gives threads credit to fill holes of ram images with, as far as the
 * limit allows, and takes back what they do not use. The keeper does it; where it cannot, its server (memory-questions.ts).
 *
 * What is given counts as used, for all keepers, so that together they never exceed the limit.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_BYTES } from '../../system/page.js';
import type { Ledger } from '../ledger/ledger.js';
import { RECALL_MS } from './ram-images.js';

/** given at a time: a question to the keeper costs about a millisecond, and copying this much twenty */
const GRANT_BYTES = 64 << 20;
/** credit that nobody used for so long is taken back, within twice the time */
const IDLE_MS = 300;
const RECALL_POLL_MS = 50;

/** A memory that is known by its id. */
export interface CreditedMemory {
  readonly id: string;
}

/** What of a vbd matters here. */
export interface CreditedVbd {
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly memory: CreditedMemory | null;
}

/** Who says how much memories may grow; see Memories. */
export interface Grants {
  grant(memory: CreditedMemory, unspentBytes: number, wantedBytes: number, neededBytes: number): Promise<number>;
  areOthersGranted(): boolean;
}

interface Granted {
  givenBytes: number;
  /** false: nobody has more to give */
  isEnough: boolean;
}

type Credited = CreditedVbd & { readonly memory: CreditedMemory };

export class MemoryCredit {
  readonly #ledger: Ledger;
  readonly #memories: Grants;
  readonly #vbds: () => Iterable<CreditedVbd>;
  /** what each file had when it was last looked at */
  readonly #seen = new Map<number, number>();
  #timer: NodeJS.Timeout | null = null;
  #answering: Promise<void> = Promise.resolve();

  constructor(ledger: Ledger, memories: Grants, vbds: () => Iterable<CreditedVbd>) {
    this.#ledger = ledger;
    this.#memories = memories;
    this.#vbds = vbds;
  }

  /** A thread asks for more; what for is in the ledger. One answer after the other. */
  wanted(nodeId: number): void {
    this.#inTurn(() => this.#answer(nodeId));
  }

  /** Answers all that is asked: whoever was to answer is gone. */
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
    // detached meanwhile: its place in the ledger may be another's by now
    if (this.#find(nodeId) === undefined) return;
    const pages = Math.floor(givenBytes / PAGE_BYTES);
    this.#ledger.giveCredit(ledgerIndex, pages, question.number, !isEnough);
    this.#timer ??= setInterval(() => this.#inTurn(() => this.#takeBackIdle()), IDLE_MS).unref();
  }

  /** Less than what is needed only at the limit, not because of what others were given and have not used. */
  async #grant({ memory, ledgerIndex }: Credited, neededBytes: number, wantedBytes: number): Promise<Granted> {
    const deadline = performance.now() + RECALL_MS;
    let givenBytes = 0;
    const isEnough = async (): Promise<boolean> => {
      const unspentBytes = this.#unspentBytes(memory) + givenBytes;
      const lackingBytes = Math.max(0, neededBytes - givenBytes);
      givenBytes += await this.#memories.grant(memory, unspentBytes, wantedBytes - givenBytes, lackingBytes);
      return givenBytes + Math.max(0, this.#ledger.credit(ledgerIndex)) * PAGE_BYTES >= neededBytes;
    };
    if (await isEnough()) return { givenBytes, isEnough: true };
    await this.#takeBackFromOthers(memory, ledgerIndex);
    for (;;) {
      // looked at first: what others let go after that is found the next time
      const mayComeBack = this.#memories.areOthersGranted() && performance.now() < deadline;
      if (await isEnough()) return { givenBytes, isEnough: true };
      if (!mayComeBack) return { givenBytes, isEnough: false };
      await delay(RECALL_POLL_MS);
    }
  }

  /** What this keeper's other files have and do not use. */
  async #takeBackFromOthers(memory: CreditedMemory, ledgerIndex: number): Promise<void> {
    const memories = new Map<string, CreditedMemory>();
    for (const other of this.#vbds()) {
      if (other.memory === null || other.ledgerIndex === ledgerIndex) continue;
      this.#ledger.takeBackCredit(other.ledgerIndex);
      memories.set(other.memory.id, other.memory);
    }
    // its own is told with the next question
    memories.delete(memory.id);
    for (const each of memories.values()) await this.#memories.grant(each, this.#unspentBytes(each), 0, 0);
  }

  #find(nodeId: number): Credited | undefined {
    for (const vbd of this.#vbds()) {
      if (vbd.nodeId === nodeId && vbd.memory !== null) return { ...vbd, memory: vbd.memory };
    }
    return undefined;
  }

  #unspentBytes({ id }: CreditedMemory): number {
    let pages = 0;
    for (const vbd of this.#vbds()) {
      if (vbd.memory?.id === id) pages += Math.max(0, this.#ledger.credit(vbd.ledgerIndex));
    }
    return pages * PAGE_BYTES;
  }

  async #takeBackIdle(): Promise<void> {
    const memories = new Map<string, CreditedMemory>();
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
    for (const memory of memories.values()) await this.#memories.grant(memory, this.#unspentBytes(memory), 0, 0);
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#seen.clear();
  }
}
