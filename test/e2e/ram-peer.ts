/**
 * A program that writes through one of several files and reads the same place through another, round by round, and
 * knows what every byte must be: all of the files must be one disk.
 *
 *     node ram-peer.js SEED ROUNDS MAPPED [UNMAPPED…]
 *
 * MAPPED are the files, `:` between, that are written and read through mappings too.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { mapShared } from '../../system/libc.js';

const MAX_BYTES = 70_000;

interface Way {
  readonly name: string;
  write(bytes: Buffer, at: number): void;
  read(length: number, at: number): Buffer;
}

/** Park and Miller's generator: the same rounds for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = (seed % 2147483646) + 1;
  return (below) => {
    state = (state * 48271) % 2147483647;
    return state % below;
  };
}

function byCalls(path: string): Way {
  const fd = openSync(path, 'r+');
  return {
    name: path,
    write(bytes, at) {
      const n = writeSync(fd, bytes, 0, bytes.length, at);
      if (n !== bytes.length) throw new Error(`${path}: ${n} of ${bytes.length} bytes written at ${at}`);
    },
    read(length, at) {
      const bytes = Buffer.alloc(length);
      const n = readSync(fd, bytes, 0, length, at);
      if (n !== length) throw new Error(`${path}: ${n} of ${length} bytes read at ${at}`);
      return bytes;
    },
  };
}

function byMapping(path: string, size: number): Way {
  const fd = openSync(path, 'r+');
  const mapping = Buffer.from(mapShared(fd, size));
  closeSync(fd);
  return {
    name: `the mapping of ${path}`,
    write: (bytes, at) => void bytes.copy(mapping, at),
    read: (length, at) => Buffer.from(mapping.subarray(at, at + length)),
  };
}

function main([seed = '', rounds = '', mapped = '', ...unmapped]: string[]): void {
  const mappable = mapped.split(':').filter((path) => path !== '');
  const first = [...mappable, ...unmapped][0] as string;
  const { size } = fstatSync(openSync(first, 'r'));
  const ways = [...mappable, ...unmapped].map(byCalls);
  ways.push(...mappable.map((path) => byMapping(path, size)));
  const model = (ways[0] as Way).read(size, 0);
  const random = generator(Number(seed));

  for (let round = 0; round < Number(rounds); round++) {
    const from = random(ways.length);
    const to = (from + 1 + random(ways.length - 1)) % ways.length;
    const [writer, reader] = [ways[from] as Way, ways[to] as Way];
    const length = 1 + random(MAX_BYTES);
    const at = random(size - length);
    const bytes = Buffer.alloc(length);
    for (let i = 0; i < length; i++) bytes[i] = (round + 1) * 31 + i * 7;
    writer.write(bytes, at);
    bytes.copy(model, at);
    // some of what lies around it too
    const start = Math.max(0, at - random(5000));
    const end = Math.min(size, at + length + random(5000));
    if (reader.read(end - start, start).equals(model.subarray(start, end))) continue;
    throw new Error(
      `seed ${seed}, round ${round}: ${reader.name} has stale bytes of ${writer.name} at ${at}+${length}`,
    );
  }
  for (const way of ways) {
    if (!way.read(size, 0).equals(model)) throw new Error(`seed ${seed}: ${way.name} is not what was written`);
  }
}

main(process.argv.slice(2));
