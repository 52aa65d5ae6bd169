/**
 * Situations: requests that make a format allocate, copy, free and reuse space. They know only the size of the unit that
 * is allocated, and of the range that one table describes.
 */
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import type { Client } from './client.js';

/** the sizes of a format that situations aim at */
export interface Shape {
  readonly size: number;
  readonly unitBytes: number;
  readonly tableBytes: number;
}

export interface Situation {
  readonly name: string;
  run(client: Client, shape: Shape): Promise<void>;
}

const SECTOR = 512;

export const SITUATIONS: readonly Situation[] = [
  {
    name: 'a first write to a part of a unit',
    run: (client, { unitBytes: unit }) => client.write(unit + 700, 1100, 1),
  },
  { name: 'a first write to whole units', run: (client, { unitBytes: unit }) => client.write(2 * unit, 3 * unit, 1) },
  {
    name: 'a first write to units and parts of units',
    run: (client, { unitBytes: unit }) => client.write(unit - 512, 2 * unit + 1024, 1),
  },
  {
    name: 'a write over a write',
    async run(client, { unitBytes: unit }) {
      await client.write(unit, 2 * unit, 1);
      await client.write(unit + 100, unit, 2);
      await client.write(unit + 100, 512, 3);
    },
  },
  {
    name: 'writes at the same time, apart',
    async run(client, { unitBytes: unit, size }) {
      const last = Math.floor(size / unit) - 2;
      const places = [0, 3, 4, 9, last].map((unitNumber) => unitNumber * unit + 512);
      await Promise.all(places.map((place, index) => client.write(place, 1024, index + 1)));
      await client.flush();
    },
  },
  {
    name: 'writes at the same time, in one unit',
    async run(client, { unitBytes: unit }) {
      await Promise.all([0, 1, 2, 3].map((part) => client.write(2 * unit + part * 128, 128, part + 1)));
      await Promise.all([client.write(5 * unit, unit, 5), client.write(5 * unit, 512, 6)]);
    },
  },
  {
    name: 'a write across tables',
    async run(client, { size, unitBytes: unit, tableBytes: table }) {
      const border = size > table ? table : Math.floor(size / 2);
      await client.write(border - unit - 512, 2 * unit + 1024, 1);
    },
  },
  {
    name: 'the first and the last bytes',
    async run(client, { size }) {
      await client.write(0, 1, 1);
      await client.write(size - 1, 1, 2);
      await client.flush();
      await client.write(size - 1100, 1100, 3);
    },
  },
  {
    name: 'flushes between writes',
    async run(client, { unitBytes: unit }) {
      await client.write(0, unit, 1);
      await client.flush();
      await client.write(0, unit, 2);
      await client.write(4 * unit, 512, 3);
      await client.flush();
      await client.write(4 * unit + 256, 512, 4);
      await client.flush();
    },
  },
  {
    name: 'a durable write',
    async run(client, { unitBytes: unit }) {
      await client.write(3 * unit, 1536, 1, { durable: true });
      await client.write(3 * unit + 512, 512, 2);
      await client.write(5 * unit, unit, 3, { durable: true });
    },
  },
  {
    name: 'a discard of units, and a write after it',
    async run(client, { unitBytes: unit }) {
      await client.write(0, 6 * unit, 1);
      await client.flush();
      await client.zero(unit, 3 * unit);
      await client.write(2 * unit + 512, 512, 2);
      await client.flush();
    },
  },
  {
    name: 'a discard of parts of units',
    async run(client, { unitBytes: unit }) {
      await client.write(0, 4 * unit, 1);
      await client.flush();
      await client.zero(unit / 2, 2 * unit + 512);
      await client.flush();
      await client.zero(3 * unit + 100, 300);
    },
  },
  {
    name: 'a discard of what was never written',
    async run(client, { unitBytes: unit }) {
      await client.zero(unit, 3 * unit);
      await client.write(2 * unit, 512, 1);
      await client.flush();
    },
  },
  {
    name: 'zeros without a hole',
    async run(client, { unitBytes: unit }) {
      await client.write(0, 3 * unit, 1);
      await client.zero(256, 2 * unit, { punch: false });
      await client.zero(4 * unit, 2 * unit, { punch: false, durable: true });
    },
  },
  {
    name: 'space that is freed and used again',
    async run(client, { unitBytes: unit, size }) {
      const last = Math.floor(size / unit) - 4;
      await client.write(0, 3 * unit, 1);
      await client.write(last * unit, 2 * unit, 2);
      await client.flush();
      await client.zero(0, 2 * unit);
      await client.write(4 * unit, 2 * unit, 3);
      await client.zero(last * unit, unit);
      await client.write((last - 2) * unit, unit, 4);
      await client.flush();
      await client.write(7 * unit, 2 * unit, 5);
      await client.write(0, unit, 6);
    },
  },
  {
    name: 'all of the disk',
    async run(client, { size, unitBytes: unit }) {
      await client.write(5 * unit, 4 * unit, 1);
      await client.zero(0, size);
      await client.write(6 * unit + 512, 2 * unit, 2);
      await client.flush();
      await client.zero(0, size, { punch: false });
    },
  },
  {
    name: 'a discard, writes and a flush at the same time',
    async run(client, { unitBytes: unit }) {
      await client.write(0, 8 * unit, 1);
      await Promise.all([
        client.zero(unit, 3 * unit),
        client.write(2 * unit, unit + 512, 2),
        client.flush(),
        client.write(6 * unit, unit, 3),
        client.zero(7 * unit, unit),
      ]);
      await client.flush();
      await client.write(9 * unit, 3 * unit, 4);
    },
  },
];

/** Random requests, some at the same time. Most aim at a few units, so that they meet. */
export function randomSituation(seed: number, { requests = 14 } = {}): Situation {
  return {
    name: `random requests ${seed}`,
    async run(client, shape) {
      const random = new Random(mix(seed));
      for (let sent = 0; sent < requests; ) {
        const together = random.isOneIn(3) ? random.between(2, 4) : 1;
        await Promise.all(Array.from({ length: together }, () => randomRequest(client, shape, random)));
        sent += together;
      }
    },
  };
}

async function randomRequest(client: Client, { size, unitBytes, tableBytes }: Shape, random: Random): Promise<void> {
  const kind = random.below(10);
  if (kind === 0) return client.flush();
  const bases = [0, tableBytes, size - 8 * unitBytes, Math.floor(size / 2)];
  const near = Math.max(0, Math.min(size - 1, random.pick(bases) + random.below(8 * unitBytes)));
  const grid = random.pick([1, SECTOR, unitBytes, unitBytes]);
  const offset = near - (near % grid);
  const wanted =
    random.pick([1, SECTOR, 3 * SECTOR, unitBytes, 2 * unitBytes, 4 * unitBytes]) + random.pick([0, 0, 700]);
  const length = Math.min(wanted, size - offset);
  const seed = random.below(250) + 1;
  if (kind < 6) return client.write(offset, length, seed, { durable: random.isOneIn(12) });
  if (kind < 9) return client.zero(offset, length, { punch: !random.isOneIn(3), durable: random.isOneIn(12) });
  return client.read(offset, length);
}

/** Spreads seeds that follow one another: the generator begins alike for them. */
export function mix(seed: number): number {
  const once = Math.imul((seed ^ (seed >>> 16)) + 0x9e3779b1, 0x45d9f3b);
  return (Math.imul(once ^ (once >>> 15), 0x2c1b3c6d) ^ (once >>> 13)) >>> 0;
}

/** What a client does after a crash: it uses space anew, so space that is counted wrongly is found. */
export const AFTERMATH: Situation = {
  name: 'the aftermath',
  async run(client, { size, unitBytes: unit, tableBytes: table }) {
    const last = Math.floor(size / unit) - 1;
    await client.write(10 * unit, 3 * unit, 201);
    await client.write(Math.min(table, last * unit), unit, 202);
    await client.flush();
    await client.zero(11 * unit, unit);
    await client.write(14 * unit + 512, unit, 203);
    await client.write((last - 1) * unit, unit, 204);
  },
};
