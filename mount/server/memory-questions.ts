/**
 * Passes the questions of threads for more memory (mount/ram/growth.ts) to the keeper, which knows the credit of all
 * vbds. If the keeper is slow, stopped or dead, the server looks at the limit itself. No write is refused because the
 * keeper does not answer.
 */
import type { RamCredit } from '../ram/credit.js';

/** how long a keeper may take to send any message after a question */
const HEAR_MS = 500;
/** how long a keeper that was heard may take to answer: near the limit, others return credit first (RECALL_MS) */
const ANSWER_MS = 5_000;

export class MemoryQuestions {
  readonly #credit: RamCredit;
  readonly #askKeeper: (nodeId: number) => void;
  /** the files whose questions were sent to the keeper, with the timer of the next look */
  readonly #asked = new Map<number, NodeJS.Timeout>();
  /** the keeper has left a question unanswered, and has sent nothing since */
  #isKeeperSilent = false;
  #isKeeperDead = false;

  constructor(credit: RamCredit, askKeeper: (nodeId: number) => void) {
    this.#credit = credit;
    this.#askKeeper = askKeeper;
  }

  /** A thread asks for memory: how much is in the ledger. */
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

  /** A message came from the keeper: it works, so wait for its answers and ask it first from now on. */
  heardKeeper(): void {
    this.#isKeeperSilent = false;
    for (const nodeId of this.#asked.keys()) this.#lookIn(ANSWER_MS, nodeId);
  }

  /** The keeper has died: answer all questions here. */
  keeperDied(): void {
    this.#isKeeperDead = true;
    this.#credit.wantedByAll();
  }
}
