/**
 * Does requests on a vbd: a process of its own, because a process that does I/O on a bus may hang with it. Reads one
 * request a line from stdin, and answers each on stdout. Requests overlap.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocateAsync,
} from '../../../system/libc.js';

export type MountedRequest =
  | { readonly kind: 'write'; readonly offset: number; readonly base64: string; readonly durable: boolean }
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number; readonly punch: boolean }
  | { readonly kind: 'flush' }
  | { readonly kind: 'read'; readonly offset: number; readonly length: number };

export type Numbered = MountedRequest & { readonly number: number };

export interface Answer {
  readonly number: number;
  readonly error?: string;
  /** of a read */
  readonly base64?: string;
}

const [path = ''] = process.argv.slice(2);
const file = await open(path, 'r+');
const durableFile = await open(path, constants.O_RDWR | constants.O_DSYNC);
// past the page cache: what the server says
const directFile = await open(path, constants.O_RDONLY | constants.O_DIRECT);

async function obey(request: MountedRequest): Promise<string | undefined> {
  if (request.kind === 'flush') {
    await file.sync();
  } else if (request.kind === 'write') {
    const bytes = Buffer.from(request.base64, 'base64');
    const { bytesWritten } = await (request.durable ? durableFile : file).write(bytes, 0, bytes.length, request.offset);
    if (bytesWritten !== bytes.length) throw new Error(`${bytesWritten} bytes were written, not ${bytes.length}`);
  } else if (request.kind === 'zero') {
    const mode = request.punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    await fallocateAsync(file.fd, mode | FALLOC_FL_KEEP_SIZE, request.offset, request.length);
  } else {
    const bytes = Buffer.alloc(request.length);
    const { bytesRead } = await directFile.read(bytes, 0, bytes.length, request.offset);
    return bytes.subarray(0, bytesRead).toString('base64');
  }
  return undefined;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { number, ...request } = JSON.parse(line) as Numbered;
  const tell = (answer: Answer): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);
  obey(request as MountedRequest).then(
    (base64) => tell({ number, ...(base64 !== undefined && { base64 }) }),
    (error: Error) => tell({ number, error: error.message }),
  );
}
