/** The same content as a window and as a disk of a driver: both must give the same answers. */
import assert from 'node:assert/strict';
import { closeSync, fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { type Disk, frontDisk } from '../../../../drivers/disk.js';
import type { Window } from '../../../../drivers/driver.js';
import { errnoOf } from '../../../../drivers/errors.js';
import { windowDisk } from '../../../../drivers/segments/window.js';
import { allocateWindow } from '../../../../drivers/segments/window-sync.js';
import {
  allocateDisk,
  readDisk,
  readLength,
  seekDisk,
  writeDisk,
} from '../../../../mount/fuse/event-loop/serve-disk.js';
import { Request } from '../../../../mount/fuse/protocol/message.js';
import { memfdCreate } from '../../../../system/libc.js';
import { patternBytes } from '../../../conformance/pattern.js';
import { makeWindowFixture, type WindowFixture } from '../window-fixture.js';
import { fallocateIn, lseekIn, message, parseReplies, readIn, writeIn } from '../wire.js';

const { ENXIO, EOPNOTSUPP } = constants.errno;
const SIZE = 12 * 4096 + 77;
const PAGES = Math.ceil(SIZE / 4096);
const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);
console.log(`# FUSETAP_TEST_SEED=${seed}`);

type Operation =
  | { kind: 'seek'; offset: number | bigint; whence: number }
  | { kind: 'allocate'; mode: number; offset: number | bigint; length: number | bigint }
  | { kind: 'read'; offset: number | bigint; size: number }
  | { kind: 'write'; offset: number | bigint; size: number };

const offsets = fc.oneof(
  fc.nat(SIZE + 5000),
  fc.nat(PAGES).chain((page) => fc.integer({ min: Math.max(0, page * 4096 - 2), max: page * 4096 + 2 })),
  fc.constantFrom(SIZE - 1, SIZE, SIZE + 1, 2 ** 53 - 1, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n),
);
const lengths = fc.oneof(fc.integer({ min: 1, max: 3 * 4096 }), fc.constantFrom(4096, SIZE, 2n ** 62n));
const operations: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ kind: fc.constant('seek' as const), offset: offsets, whence: fc.constantFrom(3, 4) }),
  fc.record({
    kind: fc.constant('allocate' as const),
    mode: fc.constantFrom(0, 1, 3, 0x10, 0x11, 0x20),
    offset: offsets,
    length: lengths,
  }),
  fc.record({ kind: fc.constant('read' as const), offset: offsets, size: fc.nat(3 * 4096) }),
  fc.record({ kind: fc.constant('write' as const), offset: offsets, size: fc.nat(4096) }),
);

function requestOf(operation: Operation): Buffer {
  switch (operation.kind) {
    case 'seek':
      return message({ opcode: 46 }, lseekIn(operation.offset, operation.whence));
    case 'allocate':
      return message({ opcode: 43 }, fallocateIn(operation.mode, operation.offset, operation.length));
    case 'read':
      return message({ opcode: 15 }, readIn(operation.offset, operation.size));
    case 'write':
      return message({ opcode: 16 }, writeIn(operation.offset, patternBytes(0, operation.size, 7)));
  }
}

/** the result for a client: a number, bytes as text, or an errno */
type Outcome = { value: number | string } | { errno: number };

async function serveByDisk(disk: Disk, { kind }: Operation, bytes: Buffer): Promise<Outcome> {
  const request = new Request(bytes);
  const serve = {
    seek: () => seekDisk(disk, request),
    allocate: () => allocateDisk(disk, request).then(() => ''),
    read: async () => {
      const room = Buffer.alloc(readLength(request), 'x');
      return room.toString('latin1', 0, await readDisk(disk, request, room));
    },
    write: () => writeDisk(disk, request),
  }[kind];
  try {
    return { value: await serve() };
  } catch (error) {
    return { errno: errnoOf(error) };
  }
}

function serveByWindow(fixture: WindowFixture, window: Window, { kind }: Operation, bytes: Buffer): Outcome {
  const answer = fixture.serve(bytes, window);
  const [reply] = Buffer.isBuffer(answer) ? parseReplies(answer) : [];
  if (reply === undefined) throw new Error(`${kind} was not served`);
  if (reply.error !== 0) return { errno: -reply.error };
  const isNumber = kind === 'seek' || kind === 'write';
  return { value: isNumber ? Number(reply.body.readBigUInt64LE()) : reply.body.toString('latin1') };
}

/** Memory with a pattern in some of its pages. */
function makeWindow(hasData: readonly boolean[], readOnly: boolean): Window {
  const fd = memfdCreate('twin');
  ftruncateSync(fd, SIZE);
  hasData.forEach((data, page) => {
    const length = Math.min(4096, SIZE - page * 4096);
    if (data) writeSync(fd, patternBytes(page * 4096, length, 3), 0, length, page * 4096);
  });
  return { fd, start: 0, size: SIZE, kind: 'memory', readOnly, durable: false };
}

function contentOf({ fd }: Window): Buffer {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, bytes, 0, bytes.length, 0);
  return bytes;
}

const plain = (value: unknown): string =>
  JSON.stringify(value, (_, field: unknown) => (typeof field === 'bigint' ? `${field}` : field)).slice(0, 120);

/** Two equal images: a thread serves one as a window, the event loop serves the other as a disk. */
interface Twins {
  readonly served: Window;
  readonly twin: Window;
  /** over `twin` */
  readonly disk: Disk;
}

/** Does one operation in both ways. @throws Error if the answers differ */
async function compare(fixture: WindowFixture, { served, twin, disk }: Twins, step: Operation): Promise<void> {
  const bytes = requestOf(step);
  const byWindow = serveByWindow(fixture, served, step, bytes);
  const byDisk = await serveByDisk(disk, step, bytes);
  const reserved = step.kind === 'allocate' && (step.mode === 0 || step.mode === 1) && 'value' in byWindow;
  // the one intended difference: only a window can reserve space
  const expected = reserved ? { errno: EOPNOTSUPP } : byWindow;
  if (plain(byDisk) !== plain(expected)) {
    throw new Error(`${plain(step)}: a window gives ${plain(byWindow)}, a disk ${plain(byDisk)}`);
  }
  // reserved space may count as data, so the twin gets it in another way
  if (reserved) allocateWindow(twin, Number(step.offset), Number(step.length));
}

t.test('seek, allocate, read and write: both ways give the same answers and leave the same bytes', async (t) => {
  const fixture = makeWindowFixture(Buffer.alloc(1));
  t.teardown(() => fixture.close());
  const script = fc.array(operations, { minLength: 1, maxLength: 25 });
  const layout = fc.array(fc.boolean(), { minLength: PAGES, maxLength: PAGES });
  const property = fc.asyncProperty(layout, script, fc.boolean(), async (hasData, steps, readOnly) => {
    const [served, twin] = [makeWindow(hasData, readOnly), makeWindow(hasData, readOnly)];
    const disk = frontDisk(
      windowDisk(twin, async () => {}),
      { readOnly },
    );
    try {
      for (const step of steps) await compare(fixture, { served, twin, disk }, step);
      if (!contentOf(served).equals(contentOf(twin))) throw new Error('the contents differ');
    } finally {
      closeSync(served.fd);
      closeSync(twin.fd);
    }
  });
  await fc.assert(property, { seed, numRuns: 80 });
});

t.test('seek agrees with a plain model of data and holes', async (t) => {
  const fixture = makeWindowFixture(Buffer.alloc(1));
  t.teardown(() => fixture.close());
  const layout = fc.array(fc.boolean(), { minLength: PAGES, maxLength: PAGES });
  const property = fc.asyncProperty(
    layout,
    fc.nat(SIZE + 100),
    fc.constantFrom(3, 4),
    async (hasData, from, whence) => {
      const window = makeWindow(hasData, false);
      try {
        const disk = frontDisk(
          windowDisk(window, async () => {}),
          { readOnly: false },
        );
        let position = from;
        while (position < SIZE && hasData[Math.floor(position / 4096)] !== (whence === 3)) {
          position = (Math.floor(position / 4096) + 1) * 4096;
        }
        const found: Outcome = position < SIZE ? { value: position } : { value: SIZE };
        const expected = from >= SIZE || (position >= SIZE && whence === 3) ? { errno: ENXIO } : found;
        const step = { kind: 'seek', offset: from, whence } as const;
        const byWindow = serveByWindow(fixture, window, step, requestOf(step));
        const byDisk = await serveByDisk(disk, step, requestOf(step));
        assert.deepEqual([byWindow, byDisk], [expected, expected]);
      } finally {
        closeSync(window.fd);
      }
    },
  );
  await fc.assert(property, { seed, numRuns: 150 });
});

t.test('a hole that is longer than one call of extents is one hole', async (t) => {
  const window = { ...makeWindow([], false), size: 2 ** 32 + 4096 };
  t.teardown(() => closeSync(window.fd));
  ftruncateSync(window.fd, window.size);
  writeSync(window.fd, Buffer.from('x'), 0, 1, 2 ** 32 + 5);
  const disk = frontDisk(
    windowDisk(window, async () => {}),
    { readOnly: false },
  );
  const seek = (offset: number, whence: number) =>
    seekDisk(disk, new Request(message({ opcode: 46 }, lseekIn(offset, whence))));
  t.equal(await seek(3, 3), 2 ** 32);
  t.equal(await seek(2 ** 32, 4), window.size);
});
