/** A request to an NBD server, from the disk that wants it until its reply. */
import { Filled } from './filled.js';
import { COMMAND, COMMAND_FLAG } from './protocol.js';

/** An extent as the server tells it. */
export interface ToldExtent {
  readonly length: number;
  /** see ALLOCATION */
  readonly flags: number;
}

/** A range of the disk. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

export interface OperationWish {
  readonly command: number;
  readonly flags?: number;
  readonly offset: number;
  readonly length: number;
  /** the bytes to write; must not change until it is settled */
  readonly data?: Uint8Array;
  /** where to read to, with room for all */
  readonly into?: Uint8Array;
  /** what a client asked to write, if the blocks around it are written; default: the same range */
  readonly asked?: Range | undefined;
}

export class Operation {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly data: Uint8Array | null;
  readonly into: Uint8Array | null;
  /** the same request, sent again, has the same bytes only if this is the same, too */
  readonly asked: Range;
  readonly settled: Promise<void>;
  /** of a read: which bytes have come; of a block status: what the server told */
  filled = new Filled();
  extents: readonly ToldExtent[] = [];
  /** the first error of its reply */
  error: { readonly number: number; readonly text: string } | null = null;
  /** its cookie's counted half, and its slot; null: none */
  cookie = 0;
  slot: number | null = null;
  /** a connection was lost while it was in flight: the server may have done it */
  isRepeated = false;
  /** how much was acknowledged when it was sent: see KeptState */
  acknowledged = 0;
  /** when it was asked for; set only if somebody looks at it */
  sinceMs = 0;
  isSettled = false;
  #resolve: () => void = () => {};
  #reject: (error: Error) => void = () => {};

  constructor({ command, flags = 0, offset, length, data, into, asked }: OperationWish) {
    this.command = command;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.data = data ?? null;
    this.into = into ?? null;
    this.asked = asked ?? { offset, length };
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether it changes the disk. */
  get changes(): boolean {
    return this.command === COMMAND.write || this.command === COMMAND.writeZeroes;
  }

  get isDurable(): boolean {
    return (this.flags & COMMAND_FLAG.fua) !== 0;
  }

  /** Makes it new, to be sent on another connection. */
  reset(): void {
    this.filled = new Filled();
    this.extents = [];
    this.error = null;
    this.slot = null;
    this.isRepeated = true;
  }

  resolve(): void {
    this.isSettled = true;
    this.#resolve();
  }

  reject(error: Error): void {
    this.isSettled = true;
    this.#reject(error);
  }
}
