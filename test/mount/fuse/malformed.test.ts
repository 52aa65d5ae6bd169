/**
 * Damaged messages get one reply or none, as the protocol defines for their opcode. They never cause a crash, a reply
 * with foreign bytes, a change outside of the disk, or a reply that is too large for the kernel.
 */
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import t from 'tap';
import { ioctl } from '../../../system/libc.js';
import { makeDispatchFixture, plainDisk } from './dispatch-fixture.js';
import { damagedMessages, judge } from './mutations.js';
import { startTransport } from './transport-child.js';
import { makeWindowFixture } from './window-fixture.js';
import { message, type ParsedReply, parseReplies, readIn, writeIn } from './wire.js';

const seed = Number(process.env.FUSETAP_TEST_SEED ?? Date.now() % 2 ** 31);
console.log(`# FUSETAP_TEST_SEED=${seed}`);
const DISK_BYTES = 20_003;
t.setTimeout(90_000);

/** a disk in the middle of memory that is filled with `surroundings` */
function embed(bytes: Buffer, surroundings: number): Buffer {
  const memory = Buffer.from(new ArrayBuffer(8192)).fill(surroundings);
  bytes.copy(memory, 64);
  return memory.subarray(64, 64 + bytes.length);
}

t.test('the dispatcher', async (t) => {
  const fixture = makeDispatchFixture();
  t.teardown(() => fixture.close());
  fixture.addFile({ nodeId: 2, name: 'xvda', disk: plainDisk(Buffer.alloc(DISK_BYTES, 'data')) });
  fixture.addFile({ nodeId: 3, name: 'xvdb', disk: plainDisk(Buffer.alloc(DISK_BYTES), true) });
  const shape = (replies: ParsedReply[]): string => replies.map(({ error, body }) => `${error}:${body.length}`).join();
  const property = fc.asyncProperty(damagedMessages, async (bytes) => {
    const wanted = bytes.length >= 40 && ![2, 42].includes(bytes.readUInt32LE(4)) ? 1 : 0;
    const replies = await fixture.ask(embed(bytes, 0x00), wanted);
    const problem = judge(bytes, replies);
    if (problem !== null) throw new Error(problem);
    const others = await fixture.ask(embed(bytes, 0xff), wanted);
    if (shape(others) !== shape(replies)) throw new Error('the answer depends on what lies around the message');
  });
  await fc.assert(property, { seed, numRuns: 4_000 });
  t.strictSame(fixture.ledger.takeInFlight(), [], 'nothing is left in flight');
});

t.test('the answers of a thread', async (t) => {
  const fixture = makeWindowFixture(Buffer.alloc(DISK_BYTES, 'data'));
  t.teardown(() => fixture.close());
  const CANARY = Buffer.alloc(8, 0xa5);
  const property = fc.property(damagedMessages, fc.boolean(), (bytes, readOnly) => {
    if (bytes.includes(CANARY)) return;
    const before = readOnly ? fixture.content() : null;
    // the rest of an earlier request
    fixture.server.request.bytes.fill(0xa5, 0, 65_536);
    const answer = fixture.serve(bytes, { readOnly });
    if (typeof answer !== 'string') {
      const problem = judge(bytes, answer === null ? [] : parseReplies(answer));
      if (problem !== null) throw new Error(problem);
      if (answer?.includes(CANARY)) throw new Error('the reply has bytes of an earlier request');
    } else if (bytes.readUInt32LE(0) !== bytes.length) {
      throw new Error('a message of the wrong length was handed over');
    }
    const after = fixture.content();
    if (after.includes(CANARY)) throw new Error('the disk has bytes of an earlier request');
    if (before !== null && !before.equals(after)) throw new Error('a read-only window has changed');
  });
  fc.assert(property, { seed, numRuns: 6_000 });
});

t.test('writes whose size field differs from the data', async (t) => {
  const fixture = makeWindowFixture(Buffer.alloc(DISK_BYTES));
  t.teardown(() => fixture.close());
  const bytes = message({ opcode: 16, nodeId: 2 }, writeIn(0, Buffer.alloc(100, 'x')));
  for (const size of [0, 99, 101, 4096, 2 ** 20, 2 ** 20 + 1, 2 ** 31, 2 ** 32 - 1]) {
    bytes.writeUInt32LE(size, 40 + 16);
    const answer = fixture.serve(bytes);
    t.equal(Buffer.isBuffer(answer) && answer.readInt32LE(4), -22, `a size of ${size}`);
  }
  t.ok(fixture.content().equals(Buffer.alloc(DISK_BYTES)), 'nothing was written');
});

/** A device on one end of a socket pair: one message at a time, because a stream has no message boundaries. */
class SocketDevice {
  readonly #socket: Socket;
  readonly #fd: number;
  #received = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
    socket.on('data', (data: Buffer) => {
      this.#received = Buffer.concat([this.#received, data]);
    });
  }

  /** Sends a message and waits until the other end has read it. */
  async send(bytes: Buffer): Promise<void> {
    this.#socket.write(bytes);
    const SIOCOUTQ = 0x5411;
    const unread = Buffer.alloc(4);
    do await delay(0);
    while (this.#socket.writableLength > 0 || ioctl(this.#fd, SIOCOUTQ, unread) < 0 || unread.readInt32LE() > 0);
  }

  /** All replies up to the reply with that unique. */
  async repliesUntil(unique: bigint): Promise<ParsedReply[]> {
    const deadline = performance.now() + 5_000;
    for (;;) {
      const replies = wholeReplies(this.#received);
      if (replies.some((reply) => reply.unique === unique)) {
        this.#received = Buffer.alloc(0);
        return replies;
      }
      if (performance.now() > deadline) throw new Error('no more answers');
      await delay(0);
    }
  }
}

function wholeReplies(bytes: Buffer): ParsedReply[] {
  let end = 0;
  while (end + 16 <= bytes.length && end + bytes.readUInt32LE(end) <= bytes.length) {
    const length = bytes.readUInt32LE(end);
    if (length < 16) throw new Error(`a reply of ${length} bytes`);
    end += length;
  }
  return parseReplies(bytes.subarray(0, end));
}

t.test('a whole transport, whose thread reads from a socket', async (t) => {
  const transport = await startTransport('socket');
  t.teardown(() => transport.kill());
  const device = new SocketDevice(transport.process.stdio[4] as Socket);
  const LAST = 0x7eee_eeee_eeeen;
  // served by the main thread, after everything that the thread handed over before
  const last = message({ opcode: 3, unique: LAST, nodeId: 1 }, Buffer.alloc(16));
  const property = fc.asyncProperty(damagedMessages, async (bytes) => {
    if (bytes.length === 0 || (bytes.length >= 16 && bytes.readBigUInt64LE(8) === LAST)) return;
    await device.send(bytes);
    await device.send(last);
    const replies = await device.repliesUntil(LAST);
    const problem = judge(
      bytes,
      replies.filter(({ unique }) => unique !== LAST),
    );
    if (problem !== null) throw new Error(problem);
  });
  await fc.assert(property, { seed, numRuns: 500, endOnFailure: true });
  await device.send(message({ opcode: 15, unique: 2n, nodeId: 2 }, readIn(0, 100)));
  const [answer] = await device.repliesUntil(2n);
  t.equal(answer?.body.length, 100, 'and it still serves');
});
