/**
 * The keeper's half of mount/fuse/memory-growth.ts: gives threads credit to fill holes of ram images with, as far as
 * the limit allows, and takes back what they do not use.
 *
 * What is given counts as used, for all keepers, so that together they never exceed the limit.
 */
import { MEMORY_PAGE } from '../fuse/memory-growth.js';
import type { Ledger } from '../ledger.js';
import type { Memories, SharedMemory } from './memories.js';

/** given at a time: a question to the keeper costs about a millisecond, and copying this much twenty */
const GRANT_BYTES = 64 << 20;
/** credit that nobody used for so long is taken back */
const IDLE_MS = 1_000;

/** What of a vbd matters here. */
export interface CreditedVbd {
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly memory: SharedMemory | null;
}

export class MemoryCredit {
  readonly #ledger: Ledger;
  readonly #memories: Memories;
  readonly #vbds: () => Iterable<CreditedVbd>;
  /** what each file had when it was last looked at */
  readonly #seen = new Map<number, number>();
  #timer: NodeJS.Timeout | null = null;
  #answering: Promise<void> = Promise.resolve();

  constructor(ledger: Ledger, memories: Memories, vbds: () => Iterable<CreditedVbd>) {
    this.#ledger = ledger;
    this.#memories = memories;
    this.#vbds = vbds;
  }

  /** A thread asks for more; what for is in the ledger. One answer after the other. */
  wanted(nodeId: number): void {
    this.#inTurn(() => this.#answer(nodeId));
  }

  #inTurn(work: () => Promise<void>): void {
    this.#answering = this.#answering.then(work).catch((error: unknown) => console.error(error));
  }

  async #answer(nodeId: number): Promise<void> {
    const vbd = this.#find(nodeId);
    if (vbd === undefined) return;
    const { memory, ledgerIndex } = vbd;
    const question = this.#ledger.creditQuestion(ledgerIndex);
    if (question === null) return;
    const wantedBytes = Math.max(GRANT_BYTES, question.pages * MEMORY_PAGE);
    const givenBytes = await this.#memories.grant(memory, this.#unspentBytes(memory), wantedBytes);
    const pages = Math.floor(givenBytes / MEMORY_PAGE);
    this.#ledger.giveCredit(ledgerIndex, pages, question.number, givenBytes < wantedBytes);
    this.#timer ??= setInterval(() => this.#inTurn(() => this.#takeBackIdle()), IDLE_MS).unref();
  }

  #find(nodeId: number): (CreditedVbd & { memory: SharedMemory }) | undefined {
    for (const vbd of this.#vbds()) {
      if (vbd.nodeId === nodeId && vbd.memory !== null) return { ...vbd, memory: vbd.memory };
    }
    return undefined;
  }

  #unspentBytes(memory: SharedMemory): number {
    let pages = 0;
    for (const vbd of this.#vbds()) {
      if (vbd.memory === memory) pages += Math.max(0, this.#ledger.credit(vbd.ledgerIndex));
    }
    return pages * MEMORY_PAGE;
  }

  async #takeBackIdle(): Promise<void> {
    const memories = new Set<SharedMemory>();
    let isOpen = false;
    for (const { memory, ledgerIndex } of this.#vbds()) {
      if (memory === null) continue;
      const pages = this.#ledger.credit(ledgerIndex);
      if (pages > 0 && this.#seen.get(ledgerIndex) === pages) this.#ledger.takeBackCredit(ledgerIndex);
      else if (pages > 0) isOpen = true;
      this.#seen.set(ledgerIndex, pages);
      memories.add(memory);
    }
    if (!isOpen) this.#stop();
    for (const memory of memories) await this.#memories.grant(memory, this.#unspentBytes(memory), 0);
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#seen.clear();
  }
}
