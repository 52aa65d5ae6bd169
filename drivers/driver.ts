/**
 * The contract of a driver: types only. Every comment here is a promise: of fusetap to the driver ("is given"), or of
 * the driver to fusetap ("must").
 *
 *      caller ──► disk.ts (validates, shortens, emulates) ──► a driver's RawDisk ──► the image
 *
 * Only disk.ts calls a RawDisk. So a driver is given only requests that are not empty, lie wholly inside the disk and
 * come while the disk is open. It is given calls that write only if it was opened for writing.
 */

/** A JSON value. The state that `prepare` returns has this type, because another process keeps it. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The image as fusetap opened it. The driver must not close the descriptor. */
export interface ImageFile {
  /**
   * Open for reading, and for writing too unless the disk is read-only; never O_DIRECT. Other processes share the open
   * file description, and so its position and flags: read and write at offsets, and do not change the position or the
   * flags.
   */
  readonly fd: number;
  /** absolute, for messages only: the file may have been renamed meanwhile, so a driver must not open this path */
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
}

/** Memory that outlives the process that serves the disk: a memfd that belongs to fusetap's keeper. */
export interface Memory {
  readonly fd: number;
}

export interface OpenContext<State extends Json = Json> {
  readonly image: ImageFile | null;
  readonly memory: Memory | null;
  /** the value that `prepare` returned; null for a driver without `prepare` */
  readonly state: State | null;
  readonly readOnly: boolean;
  /** driver options of the attach request, by name */
  readonly options: Readonly<Record<string, string>>;
}

export interface PrepareContext {
  readonly image: ImageFile | null;
  /** a memfd of size 0, sealable, for the driver to fill */
  readonly memory: Memory;
  readonly options: Readonly<Record<string, string>>;
  /** aborted when the attach is given up: stop soon and throw the signal's reason */
  readonly signal: AbortSignal;
  /** may be called any number of times while the memory is filled */
  progress(doneBytes: number, totalBytes: number): void;
}

/** What `measure` is given. */
export type MeasureContext = Pick<PrepareContext, 'image' | 'options' | 'signal'>;

export interface Driver<State extends Json = Json> {
  /** lower case, as in `aio:disk.img` */
  readonly name: string;
  /** whether the driver needs an image file; with `none` it is given null and takes its source from the options */
  readonly image: 'required' | 'none';
  /**
   * The disk is the bytes of the image. An image that is recognized as another format (qcow2, gzip …) is then refused
   * before `open` or `prepare`, unless the user says `--raw`.
   */
  readonly rawImage?: boolean;
  /** All vbds of the same image share one memory: `prepare` runs once for the first vbd, `open` for each. */
  readonly sharesMemory?: boolean;
  /** The most bytes of memory that `prepare` will fill. Default: the size of the image. */
  measure?(context: MeasureContext): Promise<number>;
  /**
   * Runs once for a memory, at the first attach: makes the state that must outlive a crash of the server. Every later
   * `open` is given the returned value.
   */
  prepare?(context: PrepareContext): Promise<State>;
  /** Runs at attach, and again each time the server is replaced. Must not change the image. */
  open(context: OpenContext<State>): Promise<RawDisk>;
}

/** A range of the disk that is all data or all hole (reads as zeros, takes no space). */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly hole: boolean;
}

export interface WriteOptions {
  /** the write must be durable before it is acknowledged */
  readonly durable: boolean;
}

export interface ZeroOptions {
  /** free the space if possible; the bytes must read as zeros in any case */
  readonly punch: boolean;
  readonly durable: boolean;
}

/** An image that a driver has opened. Calls may overlap freely; no call waits for another. */
export interface RawDisk {
  /** bytes: fixed while open, above 0, at most Number.MAX_SAFE_INTEGER; need not be a multiple of a sector */
  readonly size: number;
  /**
   * Set if the disk is exactly a range of an open file. Threads then serve the disk without calling the driver, so the
   * calls below must do only what windowDisk does.
   */
  readonly window?: Window;
  /**
   * Fills the whole buffer from `offset`, or throws. If the image has shrunk, it must throw (EIO), not return zeros.
   */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  /** Writes the whole buffer at `offset`, or throws. If omitted, the disk is read-only. */
  write?(buffer: Uint8Array, offset: number, options: WriteOptions): Promise<void>;
  /** Resolves when all acknowledged writes are durable. If omitted, there is nothing to flush. */
  flush?(): Promise<void>;
  /** Makes the range read as zeros. If omitted, disk.ts writes zeros. */
  zero?(offset: number, length: number, options: ZeroOptions): Promise<void>;
  /** Describes the range in order and without gaps; may describe more or less of it. If omitted, all is data. */
  extents?(offset: number, length: number): Promise<Extent[]>;
  /** Is called once, when no other call is under way. */
  close(): Promise<void>;
}

/**
 * A disk that is the bytes `start` to `start + size` of an open file. It is plain data, so it can be sent to a thread.
 */
export interface Window {
  readonly fd: number;
  readonly start: number;
  readonly size: number;
  readonly kind: 'file' | 'block' | 'memory';
  readonly readOnly: boolean;
  /** each write, zero and punch is durable before it is acknowledged */
  readonly durable: boolean;
}
