/**
 * The contract of a driver: types only. Every comment here is a promise, of fusetap to the driver ("you are given")
 * or of the driver to fusetap ("must").
 *
 *      caller ──► disk.ts (validates, shortens, emulates) ──► a driver's RawDisk ──► the image
 *
 * Nobody calls a RawDisk but disk.ts. So a driver is given only requests that are not empty, lie wholly inside the
 * disk, and come while it is open; writing calls only when it was opened for writing.
 */

/** Anything JSON can carry: what `prepare` returns is kept by another process. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The image as fusetap opened it. The driver must not close the descriptor. */
export interface ImageFile {
  /**
   * Open for reading, and for writing too unless the disk is read-only; never O_DIRECT. Other processes share the open file
   * and with it the position and the flags: read and write at offsets, and set neither.
   */
  readonly fd: number;
  /** absolute, for messages only: it may have been renamed since, so a driver must not open it */
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
}

/** Memory that outlives the process that serves the disk: a memfd of fusetap's keeper. */
export interface Memory {
  readonly fd: number;
}

export interface OpenContext<State extends Json = Json> {
  readonly image: ImageFile | null;
  readonly memory: Memory | null;
  /** what `prepare` returned; null for a driver without it */
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
  /** may be called any number of times while filling */
  progress(doneBytes: number, totalBytes: number): void;
}

/** What `measure` may look at. */
export type MeasureContext = Pick<PrepareContext, 'image' | 'options' | 'signal'>;

export interface Driver<State extends Json = Json> {
  /** lower case, as in `aio:disk.img` */
  readonly name: string;
  /** whether it needs an image file; `none` drivers are given null and read their source from the options */
  readonly image: 'required' | 'none';
  /**
   * One memory for all vbds of the same image. With it, `prepare` runs once for the first and `open` for each.
   */
  readonly sharesMemory?: boolean;
  /** How many bytes of memory `prepare` will fill at most. Missing: as many as the image has. */
  measure?(context: MeasureContext): Promise<number>;
  /**
   * Runs once, at the first attach, never again for this memory: makes the state that must outlive a crash of the
   * server. What it returns is given to every later `open`.
   */
  prepare?(context: PrepareContext): Promise<State>;
  /** Runs at attach and again whenever the server was replaced. Must not change the image. */
  open(context: OpenContext<State>): Promise<RawDisk>;
}

/** A run of the disk that is all data or all hole (reads as zeros, holds no space). */
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
  /** give the space back where possible; the bytes must read as zeros either way */
  readonly punch: boolean;
  readonly durable: boolean;
}

/** An image that a driver has opened. Calls may overlap freely; none waits for another. */
export interface RawDisk {
  /** bytes, fixed while open, above 0 and at most Number.MAX_SAFE_INTEGER; need not be a multiple of anything */
  readonly size: number;
  /**
   * Set where the disk is exactly a run of an open file: threads then serve it without calling the driver at all, so
   * the calls below must do nothing but what windowDisk does.
   */
  readonly window?: Window;
  /** Fills the whole buffer from `offset`, or throws. Where the image has shrunk it must throw (EIO), not give zeros. */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  /** Writes the whole buffer at `offset`, or throws. Missing: the disk is read-only. */
  write?(buffer: Uint8Array, offset: number, options: WriteOptions): Promise<void>;
  /** Returns when all acknowledged writes are durable. Missing: there is nothing to flush. */
  flush?(): Promise<void>;
  /** Makes the range read as zeros. Missing: disk.ts writes zeros. */
  zero?(offset: number, length: number, options: ZeroOptions): Promise<void>;
  /** Describes the range in order and without gaps; may give more or less than asked for. Missing: all is data. */
  extents?(offset: number, length: number): Promise<Extent[]>;
  /** Called once, when no other call is under way. */
  close(): Promise<void>;
}

/** A disk that is bytes `start` to `start + size` of an open file: plain data, so that it can go to a thread. */
export interface Window {
  readonly fd: number;
  readonly start: number;
  readonly size: number;
  readonly kind: 'file' | 'block' | 'memory';
  readonly readOnly: boolean;
  /** each write, zero and punch is durable before it is acknowledged */
  readonly durable: boolean;
}
