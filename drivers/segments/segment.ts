/** Where the bytes of a disk are, as plain data. */

/** A run of a disk: `size` bytes of the disk from `offset` on are the bytes of the window. */
export interface Segment extends Window {
  readonly offset: number;
}

/**
 * The bytes `start` to `start + size` of an open file. It is plain data, so it can be sent to a thread.
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
