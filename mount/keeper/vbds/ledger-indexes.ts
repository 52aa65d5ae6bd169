/**
 * Hands out the places in the ledger: one for each file of a bus.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { MAX_FILES } from '../../ledger/ledger.js';

export class LedgerIndexes {
  readonly #bus: string;
  readonly #free = Array.from({ length: MAX_FILES }, (_, i) => MAX_FILES - 1 - i);

  constructor(bus: string) {
    this.#bus = bus;
  }

  /** @throws FusetapError NO_SPACE */
  take(): number {
    const index = this.#free.pop();
    if (index !== undefined) return index;
    throw new FusetapError('NO_SPACE', `bus ${this.#bus} is full: ${MAX_FILES} vbds`);
  }

  free(index: number): void {
    this.#free.push(index);
  }
}
