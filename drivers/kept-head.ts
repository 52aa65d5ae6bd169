/**
 * The first bytes of the memory that a driver of a remote disk keeps beyond its process (Host.keep). Whoever has the
 * descriptor can tell whether acknowledged writes may not be durable, also when no process is left that could flush them.
 *
 *     0   magic     4   version of what follows, of the driver
 *     8   acknowledged writes, counted     12  how many of them are durable, or their loss was told
 */
import { fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { addSeals, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, getSeals, memfdCreate } from '../system/libc.js';

const KEPT_MAGIC = 0x7470_656b;

/** int32 words */
export const KEPT_WORD = { magic: 0, version: 1, acknowledged: 2, durable: 3 } as const;
const WORDS = 4;
/** a mapped memory that shrinks kills who touches it */
const SEALS = F_SEAL_SHRINK | F_SEAL_GROW;

/** How a driver lays its memory out. */
export interface KeptLayout {
  /** of the memfd */
  readonly name: string;
  readonly bytes: number;
  /** a server of another version does not read it */
  readonly version: number;
}

/** Makes such a memory, with a head; the caller owns the descriptor. */
export function createKept({ name, bytes, version }: KeptLayout): number {
  const fd = memfdCreate(name);
  ftruncateSync(fd, bytes);
  const head = new Int32Array(WORDS);
  head[KEPT_WORD.magic] = KEPT_MAGIC;
  head[KEPT_WORD.version] = version;
  writeSync(fd, head, 0, head.byteLength, 0);
  addSeals(fd, SEALS | F_SEAL_SEAL);
  return fd;
}

/** Whether it is one. Look before it is mapped: what is written to another file by mistake would destroy it. */
export function isKept(fd: number, { bytes, version }: KeptLayout): boolean {
  try {
    if (fstatSync(fd).size !== bytes || (getSeals(fd) & SEALS) !== SEALS) return false;
  } catch {
    // F_GET_SEALS of a file that is no memfd
    return false;
  }
  return readKeptHead(fd)?.[KEPT_WORD.version] === version;
}

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
