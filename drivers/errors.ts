/**
 * The one error class of fusetap and its closed list of codes.
 *
 * The code is the kind of error; it decides the exit status of the command line and the answer of the control socket.
 * The message says what failed and where, with the value received. The hint says how to fix it. A programmer's mistake
 * is a TypeError or RangeError, never a FusetapError.
 */
import { constants } from 'node:os';

/** Every code with its exit status on the command line. docs/cli.md explains each; a test compares the two. */
export const EXIT_CODES = {
  FAILED: 1,
  USAGE: 2,
  NOT_FOUND: 3,
  BUSY: 4,
  DENIED: 5,
  UNSUPPORTED: 6,
  NO_SPACE: 7,
} as const;

export type ErrorCode = keyof typeof EXIT_CODES;

/** A process, device, mount or vbd that uses the file. Each key is there only if it is known. */
export interface Holder {
  pid?: number;
  command?: string;
  /** a loop device, as `/dev/loop0` */
  loop?: string;
  /** a mountpoint */
  mount?: string;
  bus?: string;
  vdev?: string;
}

export interface ErrorDetails {
  /** how to fix it: one clause, no full stop */
  hint?: string | undefined;
  /** positive; only for errors of the system */
  errno?: number | undefined;
  /** the system call or the step that failed, as `open`, `copy` */
  operation?: string | undefined;
  path?: string | undefined;
  /** bytes from the start of the disk */
  offset?: number | undefined;
  holders?: Holder[] | undefined;
  cause?: unknown;
}

/** The plain data of an error, as it crosses the control socket and the pipe between keeper and server. */
export interface PlainError {
  code: ErrorCode;
  message: string;
  hint?: string;
  errno?: number;
  operation?: string;
  path?: string;
  offset?: number;
  holders?: Holder[];
}

export class FusetapError extends Error {
  override readonly name = 'FusetapError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly errno: number | undefined;
  readonly operation: string | undefined;
  readonly path: string | undefined;
  readonly offset: number | undefined;
  readonly holders: Holder[] | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
    this.errno = details.errno;
    this.operation = details.operation;
    this.path = details.path;
    this.offset = details.offset;
    this.holders = details.holders;
  }

  toJSON(): PlainError {
    const { code, message, hint, errno, operation, path, offset, holders } = this;
    // JSON omits undefined values
    return JSON.parse(JSON.stringify({ code, message, hint, errno, operation, path, offset, holders })) as PlainError;
  }

  static from(plain: PlainError): FusetapError {
    return new FusetapError(plain.code, plain.message, plain);
  }
}

/** the operation of errors that isCodeMissing finds */
export const LOAD_CODE = 'load code';

/** Whether code of fusetap itself could not be loaded: no disk caused the error, and a later attempt may succeed. */
export function isCodeMissing(error: unknown): boolean {
  return error instanceof FusetapError && error.operation === LOAD_CODE;
}

const { errno } = constants;

/** The code for an errno of the system; FAILED for those not listed. */
export function codeOfErrno(value: number): ErrorCode {
  switch (value) {
    case errno.ENOENT:
    case errno.ENOTDIR:
    case errno.ENODEV:
    case errno.ENXIO:
      return 'NOT_FOUND';
    case errno.EACCES:
    case errno.EPERM:
    case errno.EROFS:
      return 'DENIED';
    case errno.EBUSY:
    case errno.ETXTBSY:
    case errno.EAGAIN:
      return 'BUSY';
    case errno.ENOSPC:
    case errno.EDQUOT:
    case errno.ENOMEM:
      return 'NO_SPACE';
    case errno.ENOSYS:
    case errno.EOPNOTSUPP:
      return 'UNSUPPORTED';
    default:
      return 'FAILED';
  }
}

/** The errno that a client of a vbd gets for any error: the error's own errno, else that of its code, else EIO. */
export function errnoOf(error: unknown): number {
  const known = error as { errno?: unknown; code?: unknown };
  // Node's system errors have negative numbers
  if (typeof known?.errno === 'number' && known.errno !== 0) return Math.abs(known.errno);
  switch (known?.code) {
    case 'USAGE':
      return errno.EINVAL;
    case 'NOT_FOUND':
      return errno.ENOENT;
    case 'BUSY':
      return errno.EBUSY;
    case 'DENIED':
      return errno.EPERM;
    case 'UNSUPPORTED':
      return errno.EOPNOTSUPP;
    case 'NO_SPACE':
      return errno.ENOSPC;
    default:
      return errno.EIO;
  }
}

/** Any error as a FusetapError: a system error gets the code of its errno, any other error FAILED. */
export function toFusetapError(error: unknown, message: string, details: ErrorDetails = {}): FusetapError {
  if (error instanceof FusetapError) return error;
  const value = (error as { errno?: unknown } | null)?.errno;
  const number = typeof value === 'number' ? Math.abs(value) : undefined;
  return new FusetapError(number === undefined ? 'FAILED' : codeOfErrno(number), message, {
    errno: number,
    cause: error,
    ...details,
  });
}
