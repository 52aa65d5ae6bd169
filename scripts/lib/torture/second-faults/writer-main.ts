/**
 * The writer: a process that writes to the disks of one bus and compares. It gets requests on stdin and answers on
 * stdout. It is a separate process because a process that does I/O on a bus may hang with it, and the torture must not.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Line, Numbered, Request, Target } from './messages.js';
import { BLOCK_BYTES, compareBlock, fillBlock, generationOf } from './pattern.js';
import { WrittenDisk } from './written-disk.js';

const BEAT_MS = 200;
const PROBED_BLOCKS = 8;

const disks = new Map<string, WrittenDisk>();
const running = new Set<WrittenDisk>();
const held = new Map<string, FileHandle>();

function tell(line: Line): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function obey(request: Request): Promise<void> {
  if (request.act === 'begin') {
    const disk = new WrittenDisk(request.target, tell);
    await disk.begin();
    disks.set(request.target.path, disk);
    running.add(disk);
  } else if (request.act === 'end') {
    const disk = disks.get(request.path);
    if (disk === undefined) return;
    await disk.end(request.readsAll);
    running.delete(disk);
  } else if (request.act === 'probe') {
    await probe(request.target);
  } else if (request.act === 'compare') {
    await disks.get(request.path)?.compareWith(request.file);
  } else if (request.act === 'inspect') {
    await inspect(request.target);
  } else if (request.act === 'hold') {
    held.set(request.path, await open(request.path, 'r'));
  } else {
    await held.get(request.path)?.close();
  }
}

async function probe({ path, disk, sizeBytes }: Target): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const written = Buffer.alloc(BLOCK_BYTES);
    const found = Buffer.alloc(BLOCK_BYTES);
    for (let i = 0; i < PROBED_BLOCKS; i++) {
      const block = Math.floor(Math.random() * (sizeBytes / BLOCK_BYTES));
      const generation = 1 + Math.floor(Math.random() * 1e9);
      fillBlock(written, { disk, block }, generation);
      await file.write(written, 0, BLOCK_BYTES, block * BLOCK_BYTES);
      await file.read(found, 0, BLOCK_BYTES, block * BLOCK_BYTES);
      const text = compareBlock(found, { disk, block }, [generation]);
      if (text !== null) tell({ kind: 'mismatch', path, text });
    }
  } finally {
    await file.close();
  }
}

async function inspect({ path, disk, sizeBytes }: Target): Promise<void> {
  const file = await open(path, 'r');
  try {
    const found = Buffer.alloc(BLOCK_BYTES);
    for (let block = 0; block < sizeBytes / BLOCK_BYTES; block++) {
      found.fill(0);
      await file.read(found, 0, BLOCK_BYTES, block * BLOCK_BYTES);
      const generation = generationOf(found, { disk, block });
      if (typeof generation === 'string') throw new Error(`the copy is torn: ${generation}`);
    }
  } finally {
    await file.close();
  }
}

// SIGINT from the terminal is for the torture, which ends its writers in order
process.on('SIGINT', () => {});
process.on('SIGHUP', () => {});
setInterval(() => {
  const beats = [...running].map((disk) => disk.beat());
  if (beats.length > 0) tell({ kind: 'beat', disks: beats });
}, BEAT_MS).unref();
for await (const text of createInterface({ input: process.stdin })) {
  const request = JSON.parse(text) as Numbered;
  const { number } = request;
  obey(request).then(
    () => tell({ kind: 'answer', number, error: null }),
    (error: Error) => tell({ kind: 'answer', number, error: error.message }),
  );
}
// the torture has ended or needs nothing more, so do not finish waiting work
process.exit(0);
