/**
 * The open handles of a bus, by fh: a map in front of the ledger's records, so that a new server knows the handles of
 * the old one.
 *
 * fh is the unique of the OPEN that made the handle, so a repeated OPEN gives the same handle. Entries can be stale
 * (for a client killed between two servers no RELEASE comes). They are used for display and for flush errors, not to
 * decide whether a file is in use.
 */
import { type HandleRecord, type Ledger, MAX_HANDLES } from '../ledger/ledger.js';

export class Handles {
  readonly #ledger: Ledger;
  readonly #places = new Map<number, number>();
  readonly #free: number[] = [];

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
    for (let place = MAX_HANDLES - 1; place >= 0; place--) {
      const record = ledger.handleAt(place);
      if (record === null) this.#free.push(place);
      else this.#places.set(record.fh, place);
    }
  }

  /** @returns false if there is no room for another handle (the caller answers ENFILE) */
  open(handle: HandleRecord, flushIndex: number): boolean {
    const place = this.#places.get(handle.fh) ?? this.#free.pop();
    if (place === undefined) return false;
    this.#places.set(handle.fh, place);
    this.#ledger.setHandle(place, handle, this.#ledger.flushErrors(flushIndex).count);
    return true;
  }

  close(fh: number): void {
    const place = this.#places.get(fh);
    if (place === undefined) return;
    this.#places.delete(fh);
    this.#ledger.clearHandle(place);
    this.#free.push(place);
  }

  /** The errno of a failed flush that this handle has not reported yet, else 0. */
  takeFlushError(fh: number, flushIndex: number): number {
    const place = this.#places.get(fh);
    // a handle without a record reports the error every time
    if (place === undefined) return this.#ledger.flushErrors(flushIndex).errno;
    return this.#ledger.takeFlushError(place, flushIndex);
  }
}
