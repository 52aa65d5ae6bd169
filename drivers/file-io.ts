/**
 * Reads and writes of whole buffers at a position of an open file, on libuv's pool. A system call may transfer fewer
 * bytes than the buffer has; these functions repeat it.
 */
import { read, write } from 'node:fs';

/** Resolves to the count of bytes read: less than the buffer only at the end of the file. */
export async function readFully(fd: number, buffer: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < buffer.byteLength) {
    const n = await readSome(fd, buffer, done, position + done);
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Writes all bytes. */
export async function writeFully(fd: number, buffer: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < buffer.byteLength) done += await writeSome(fd, buffer, done, position + done);
}

function readSome(fd: number, buffer: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, buffer, from, buffer.byteLength - from, position, (error, n) => (error ? reject(error) : resolve(n)));
  });
}

function writeSome(fd: number, buffer: Uint8Array, from: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, buffer, from, buffer.byteLength - from, position, (error, n) => (error ? reject(error) : resolve(n)));
  });
}
