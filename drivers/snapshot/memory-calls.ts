/**
 * The system calls on the memory of a snapshot. Each changes the memory in one step; tests replace them to end a server
 * between two steps.
 */
import { readSync, writeSync } from 'node:fs';
import {
  E,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocateAsync,
  lseek,
  SEEK_DATA,
  SystemCallError,
} from '../../system/libc.js';
import { FusetapError } from '../errors.js';
import { readFully, writeFully } from '../file-io.js';

export interface MemoryCalls {
  /** Reads a few bytes, at once. Holes read as zeros and stay holes. */
  look(buffer: Uint8Array, place: number): void;
  /** Writes a few bytes, at once. */
  note(bytes: Uint8Array, place: number): void;
  read(buffer: Uint8Array, place: number): Promise<void>;
  write(bytes: Uint8Array, place: number): Promise<void>;
  /** Makes a range a hole. */
  punch(place: number, length: number): Promise<void>;
  /** The first place at or after `place` that is not in a hole; Infinity if there is none. */
  nextData(place: number): number;
}

/** up to this size, copying takes less time than the way to a thread of the pool and back: tens of microseconds */
const AT_ONCE_BYTES = 32 << 10;

export function memoryCalls(fd: number): MemoryCalls {
  const look = (buffer: Uint8Array, place: number): void => {
    for (let done = 0; done < buffer.byteLength; ) {
      const n = readSync(fd, buffer, done, buffer.byteLength - done, place + done);
      if (n === 0) throw memoryShrank();
      done += n;
    }
  };
  const note = (bytes: Uint8Array, place: number): void => {
    for (let done = 0; done < bytes.byteLength; ) {
      done += writeSync(fd, bytes, done, bytes.byteLength - done, place + done);
    }
  };
  return {
    look,
    note,
    async read(buffer, place) {
      if (buffer.byteLength <= AT_ONCE_BYTES) return look(buffer, place);
      if ((await readFully(fd, buffer, place)) < buffer.byteLength) throw memoryShrank();
    },
    async write(bytes, place) {
      if (bytes.byteLength <= AT_ONCE_BYTES) return note(bytes, place);
      await writeFully(fd, bytes, place);
    },
    async punch(place, length) {
      for (;;) {
        try {
          return await fallocateAsync(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, place, length);
        } catch (error) {
          if (!(error instanceof SystemCallError) || error.errno !== E.EINTR) throw error;
        }
      }
    },
    nextData(place) {
      const found = lseek(fd, place, SEEK_DATA);
      if (found >= 0) return found;
      if (found === -E.ENXIO) return Number.POSITIVE_INFINITY;
      throw new SystemCallError('lseek', -found);
    },
  };
}

function memoryShrank(): FusetapError {
  return new FusetapError('FAILED', 'snapshot: the memory has shrunk', { errno: E.EIO });
}
