/**
 * To whom the questions of threads for more memory go (mount/ram/growth.ts): to the keeper, who knows what all
 * vbds have; where it is slow, stopped or dead, the server looks at the limit itself. Nobody's write is refused because
 * somebody does not answer.
 */
import type { MemoryCredit } from '../ram/credit.js';

/** for a keeper to say that it has heard the question */
const HEAR_MS = 500;
/** for one that has, which near the limit waits for what others give back (RECALL_MS) */
const ANSWER_MS = 5_000;

export class MemoryQuestions {
  readonly #credit: MemoryCredit;
  readonly #askKeeper: (nodeId: number) => void;
  /** the files whose questions the keeper has, and when they are looked at again */
  readonly #asked = new Map<number, NodeJS.Timeout>();
  /** it has not been heard since a question was left without an answer */
  #isKeeperSilent = false;
  #isKeeperDead = false;

  constructor(credit: MemoryCredit, askKeeper: (nodeId: number) => void) {
    this.#credit = credit;
    this.#askKeeper = askKeeper;
  }

  /** A thread asks; what for is in the ledger. */
  ask(nodeId: number): void {
    if (this.#isKeeperDead || this.#isKeeperSilent) return this.#credit.wanted(nodeId);
    this.#askKeeper(nodeId);
    if (!this.#asked.has(nodeId)) this.#lookIn(HEAR_MS, nodeId);
  }

  #lookIn(delayMs: number, nodeId: number): void {
    clearTimeout(this.#asked.get(nodeId));
    this.#asked.set(
      nodeId,
      setTimeout(() => this.#look(nodeId), delayMs),
    );
  }

  #look(nodeId: number): void {
    this.#asked.delete(nodeId);
    if (!this.#credit.isWaiting(nodeId)) return;
    this.#isKeeperSilent = true;
    this.#credit.wanted(nodeId);
  }

  /** The keeper has said something: it is asked first, and what it was asked it will answer. */
  heardKeeper(): void {
    this.#isKeeperSilent = false;
    for (const nodeId of this.#asked.keys()) this.#lookIn(ANSWER_MS, nodeId);
  }

  /** The keeper is gone for good. */
  keeperDied(): void {
    this.#isKeeperDead = true;
    this.#credit.wantedByAll();
  }
}
