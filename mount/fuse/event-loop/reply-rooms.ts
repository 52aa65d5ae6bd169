/**
 * Where drivers put the bytes of reads, with room for the header of the reply in front, so that one write(2) sends both.
 *
 *      0            4080      4096
 *      ├────────────┼─────────┼──────── data ────────┤
 *                   └ out_header: the reply begins here
 *
 * Reads use this memory one after the other. It is not locked, as the other buffers for the device are (system/resident.ts):
 * there may be many, and the driver has just filled it. `touch` makes sure of it.
 */
import { addressOf } from '../../../system/libc.js';
import { MemoryPool } from '../../../system/memory-pool.js';
import { bytesToPage, PAGE_BYTES } from '../../../system/page.js';
import * as abi from '../protocol/abi.js';
import { Reply } from '../protocol/message.js';

/** the space for the header, and what aligns the data to a page */
const EXTRA_BYTES = 2 * PAGE_BYTES;

export class ReplyRoom {
  readonly reply: Reply;
  /** the address of the header */
  readonly address: number;
  /** where the driver puts what it reads */
  readonly data: Buffer;
  /** whose bytes it has; null: it has zeros */
  #user: WeakRef<object> | null = null;

  /** @param dataBytes room for so much data */
  constructor(dataBytes: number) {
    const whole = Buffer.alloc(dataBytes + EXTRA_BYTES);
    const wholeAddress = addressOf(whole);
    const replyAt = bytesToPage(wholeAddress + abi.OUT_HEADER_SIZE);
    const dataAt = replyAt + abi.OUT_HEADER_SIZE;
    this.reply = new Reply(whole.subarray(replyAt));
    this.address = wholeAddress + replyAt;
    this.data = whole.subarray(dataAt, dataAt + dataBytes);
  }

  /** A driver that forgets a part of a read must not show what another disk has left there. */
  useFor(disk: object): void {
    const user = this.#user?.deref();
    if (user === disk) return;
    if (this.#user !== null) this.data.fill(0);
    this.#user = new WeakRef(disk);
  }

  /** Brings back what the system may have moved to swap. */
  touch(length: number): void {
    let sum = 0;
    for (let at = 0; at < length; at += PAGE_BYTES) sum += this.data[at] as number;
    // the value is of no interest, but an unused loop may be optimized away
    this.reply.words[abi.OUT_ERROR] = sum;
  }
}

export class ReplyRooms extends MemoryPool<ReplyRoom> {
  constructor() {
    super({
      ...{ smallestBytes: 4096, keptBytes: 8 << 20 },
      make: (bytes) => new ReplyRoom(bytes),
      bytesOf: ({ data }) => data.byteLength,
    });
  }
}
