/**
 * INIT: the first message of a connection, sent only once. The keeper answers it, so that servers can be replaced.
 */
import { FusetapError } from '../../../drivers/errors.js';
import * as abi from '../protocol/abi.js';
import { isWellFormed, type Reply, Request } from '../protocol/message.js';

/** The result of the negotiation with the kernel, as plain data for the server. */
export interface Negotiated {
  readonly minor: number;
  /** FUSE_NOTIFY_RESEND: requests that a dead server had read are sent again to the next server (Linux 6.9) */
  readonly canResend: boolean;
  /** Linux 6.9 */
  readonly canPassThrough: boolean;
}

/** the protocol of Linux 5.4, which has everything that the data path needs */
const OLDEST_MINOR = 31;

const WANTED =
  abi.INIT_ASYNC_READ |
  // without ATOMIC_O_TRUNC: with it, the kernel assumes that the file is empty after an open with O_TRUNC
  abi.INIT_BIG_WRITES |
  abi.INIT_ASYNC_DIO |
  abi.INIT_PARALLEL_DIROPS |
  // an aborted connection gives ECONNABORTED, which tells a failed bus from an unmounted one
  abi.INIT_ABORT_ERROR |
  abi.INIT_MAX_PAGES |
  abi.INIT_EXT;
const WANTED2 = abi.INIT2_PASSTHROUGH | abi.INIT2_RESEND;

/**
 * The most asynchronous requests under way at one time; beyond that the kernel makes clients wait. It limits the memory
 * of requests that the main thread serves. Four clients at queue depth 32 fit in, or 32 reads of 1 MiB.
 */
const MAX_BACKGROUND = 192;

/**
 * Makes the answer to INIT.
 * @param received the message as read from the device
 * @param reply receives the answer
 * @throws FusetapError UNSUPPORTED if the kernel is too old
 */
export function answerInit(received: Buffer, reply: Reply): Negotiated {
  const request = new Request(received);
  if (!isWellFormed(request, received.length) || request.opcode !== abi.INIT) {
    throw new FusetapError('FAILED', `the first message of the FUSE connection is not INIT (opcode ${request.opcode})`);
  }
  const major = request.bodyU32(abi.INIT_MAJOR);
  const minor = request.bodyU32(abi.INIT_MINOR);
  if (major !== abi.KERNEL_MAJOR || minor < OLDEST_MINOR) {
    throw new FusetapError('UNSUPPORTED', `the kernel speaks FUSE ${major}.${minor}`, {
      hint: `fusetap needs ${abi.KERNEL_MAJOR}.${OLDEST_MINOR} or later (Linux 5.4)`,
    });
  }
  const flags = request.bodyU32(abi.INIT_FLAGS) & WANTED;
  const hasFlags2 = (flags & abi.INIT_EXT) !== 0 && received.length >= abi.IN_HEADER_SIZE + abi.INIT_IN_EXT_SIZE;
  const flags2 = hasFlags2 ? request.bodyU32(abi.INIT_FLAGS2) & WANTED2 : 0;
  const canPassThrough = (flags2 & abi.INIT2_PASSTHROUGH) !== 0;
  reply.clearBody(abi.INIT_OUT_SIZE);
  reply.bodyU32(0, abi.KERNEL_MAJOR);
  reply.bodyU32(1, Math.min(minor, abi.KERNEL_MINOR));
  reply.bodyU32(2, request.bodyU32(abi.INIT_MAX_READAHEAD));
  reply.bodyU32(3, flags);
  reply.bodyU32(4, MAX_BACKGROUND | (((MAX_BACKGROUND * 3) / 4) << 16));
  reply.bodyU32(5, abi.MAX_WRITE);
  reply.bodyU32(6, 1);
  reply.bodyU32(7, abi.MAX_PAGES);
  reply.bodyU32(8, flags2);
  reply.bodyU32(9, canPassThrough ? 1 : 0);
  reply.header(request.uniqueLow, request.uniqueHigh, 0, abi.INIT_OUT_SIZE);
  return { minor, canResend: (flags2 & abi.INIT2_RESEND) !== 0, canPassThrough };
}
