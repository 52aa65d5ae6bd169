/**
 * The open handles of a bus that libfuse serves. A handle is a number of 31 bits. libfuse does not tell its process, so
 * the records in the ledger have no pid.
 */
import type { Ledger } from '../ledger/ledger.js';
import { writesDurably } from '../transport/file-rules.js';
import { Handles } from '../transport/handles.js';
import type { BusFile } from '../transport/transport.js';

const LAST_HANDLE = 2 ** 31 - 1;

export interface OpenFile {
  readonly file: BusFile;
  /** opened with O_SYNC or O_DSYNC: each write is durable before it is acknowledged */
  readonly isDurable: boolean;
}

export class OpenFiles {
  readonly #handles: Handles;
  readonly #open = new Map<number, OpenFile>();
  #last = 0;

  constructor(ledger: Ledger) {
    this.#handles = new Handles(ledger);
  }

  /** @returns the new handle, above 0; 0 if there is no room for another handle */
  open(file: BusFile, flags: number): number {
    const fh = this.#nextFree();
    const { nodeId, flushIndex } = file;
    if (!this.#handles.open({ fh, nodeId, pid: 0, flags }, flushIndex)) return 0;
    this.#open.set(fh, { file, isDurable: writesDurably(flags) });
    return fh;
  }

  find(fh: number): OpenFile | undefined {
    return this.#open.get(fh);
  }

  close(fh: number): void {
    this.#open.delete(fh);
    this.#handles.close(fh);
  }

  /** The errno of a failed flush that this handle has not reported yet, else 0. */
  takeFlushError(fh: number, { flushIndex }: BusFile): number {
    return this.#handles.takeFlushError(fh, flushIndex);
  }

  #nextFree(): number {
    do this.#last = this.#last === LAST_HANDLE ? 1 : this.#last + 1;
    while (this.#open.has(this.#last));
    return this.#last;
  }
}
