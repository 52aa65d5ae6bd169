/**
 * The first bytes of the memory that a driver of a remote disk keeps beyond its process (Host.keep). Whoever has the
 * descriptor can tell whether acknowledged writes may not be durable, also when no process is left that could flush them.
 *
 *     0   magic     4   version of what follows, of the driver
 *     8   acknowledged writes, counted     12  how many of them are durable, or their loss was told
 */
import { readSync } from 'node:fs';

export const KEPT_MAGIC = 0x7470_656b;

/** int32 words */
export const KEPT_WORD = { magic: 0, version: 1, acknowledged: 2, durable: 3 } as const;
const WORDS = 4;

/** The head of a memory; null if the descriptor is something else. It is only read. */
export function readKeptHead(fd: number): Int32Array | null {
  const head = new Int32Array(WORDS);
  try {
    if (readSync(fd, head, 0, head.byteLength, 0) !== head.byteLength) return null;
  } catch {
    return null;
  }
  return head[KEPT_WORD.magic] === KEPT_MAGIC ? head : null;
}

/** Whether acknowledged writes may not be durable; null if the descriptor does not tell. */
export function hasUnflushed(fd: number): boolean | null {
  const head = readKeptHead(fd);
  return head === null ? null : head[KEPT_WORD.acknowledged] !== head[KEPT_WORD.durable];
}
