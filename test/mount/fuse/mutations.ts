/** Damaged messages: real and possible requests of a kernel, with fields overwritten, and parts missing or added. */
import fc from 'fast-check';
import { CAPTURED } from './captured/requests.js';
import {
  batchForgetIn,
  fallocateIn,
  forgetIn,
  fsyncIn,
  ioctlIn,
  lseekIn,
  message,
  name,
  openIn,
  readIn,
  releaseIn,
  setattrIn,
  writeIn,
} from './wire.js';

/** READ, WRITE, … for existing files, in addition to the captured requests */
const OWN: readonly Buffer[] = [
  message({ opcode: 1 }, name('xvda')),
  message({ opcode: 2, nodeId: 3 }, forgetIn(1)),
  message({ opcode: 3, nodeId: 2 }, Buffer.alloc(16)),
  message({ opcode: 4, nodeId: 2 }, setattrIn(0x1b7)),
  message({ opcode: 14, nodeId: 2 }, openIn(2)),
  message({ opcode: 15, nodeId: 2 }, readIn(0, 4096)),
  message({ opcode: 15, nodeId: 3 }, readIn(5000, 1 << 20)),
  message({ opcode: 16, nodeId: 2 }, writeIn(4096, Buffer.alloc(700, 'w'))),
  message({ opcode: 17 }),
  message({ opcode: 18, nodeId: 2 }, releaseIn(4n)),
  message({ opcode: 20, nodeId: 2 }, fsyncIn(4n)),
  message({ opcode: 28 }, readIn(0, 4096)),
  message({ opcode: 39, nodeId: 2 }, ioctlIn(0x80081272, 8)),
  message(
    { opcode: 42 },
    batchForgetIn([
      [2, 1],
      [3, 2],
      [77, 3],
    ]),
  ),
  message({ opcode: 43, nodeId: 2 }, fallocateIn(3, 100, 5000)),
  message({ opcode: 46, nodeId: 2 }, lseekIn(0, 4)),
];

const CORPUS: readonly Buffer[] = [...CAPTURED.map(({ hex }) => Buffer.from(hex, 'hex')), ...OWN];

type Damage =
  | { kind: 'u32'; at: number; value: number }
  | { kind: 'u64'; at: number; value: bigint }
  | { kind: 'byte'; at: number; value: number }
  | { kind: 'cut'; length: number }
  | { kind: 'extend'; bytes: Uint8Array };

const U32 = [0, 1, 7, 8, 16, 4095, 4096, 2 ** 20, 2 ** 20 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const U64 = [
  0n,
  1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 2n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];

const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({
    kind: fc.constant('u32' as const),
    at: fc.nat(40),
    value: fc.oneof(fc.constantFrom(...U32), fc.nat(64), fc.nat(0xffff_ffff)),
  }),
  fc.record({ kind: fc.constant('u64' as const), at: fc.nat(20), value: fc.constantFrom(...U64) }),
  fc.record({ kind: fc.constant('byte' as const), at: fc.nat(200), value: fc.nat(255) }),
  fc.record({ kind: fc.constant('cut' as const), length: fc.nat(200) }),
  fc.record({ kind: fc.constant('extend' as const), bytes: fc.uint8Array({ minLength: 1, maxLength: 200 }) }),
);

function apply(bytes: Buffer, one: Damage): Buffer {
  switch (one.kind) {
    case 'u32':
      if (4 * one.at + 4 <= bytes.length) bytes.writeUInt32LE(one.value, 4 * one.at);
      return bytes;
    case 'u64':
      if (8 * one.at + 8 <= bytes.length) bytes.writeBigUInt64LE(one.value, 8 * one.at);
      return bytes;
    case 'byte':
      if (one.at < bytes.length) bytes[one.at] = one.value;
      return bytes;
    case 'cut':
      return bytes.subarray(0, Math.min(one.length, bytes.length));
    case 'extend':
      return Buffer.concat([bytes, one.bytes]);
  }
}

/** Messages, most of them damaged. In half of them the length field is right. */
export const damagedMessages: fc.Arbitrary<Buffer> = fc
  .record({
    base: fc.nat(CORPUS.length - 1),
    damages: fc.array(damage, { maxLength: 4 }),
    isLengthTrue: fc.boolean(),
  })
  .map(({ base, damages, isLengthTrue }) => {
    const bytes = Buffer.concat([damages.reduce(apply, Buffer.concat([CORPUS[base] ?? Buffer.alloc(0)]))]);
    if (isLengthTrue && bytes.length >= 4) bytes.writeUInt32LE(bytes.length, 0);
    return bytes;
  });

/** Checks the number of replies and their content. @returns the first fault; null if all is right */
export function judge(
  bytes: Buffer,
  replies: readonly { error: number; unique: bigint; body: Buffer }[],
): string | null {
  const opcode = bytes.length < 8 ? 0 : bytes.readUInt32LE(4);
  const isTwoWay = bytes.length >= 40 && opcode !== 2 && opcode !== 42;
  if (replies.length !== (isTwoWay ? 1 : 0)) return `${replies.length} replies to opcode ${opcode}`;
  const [reply] = replies;
  if (reply === undefined) return null;
  const { error, unique, body } = reply;
  if (unique !== bytes.readBigUInt64LE(8)) return `the unique of another request: ${unique}`;
  if (error > 0 || error <= -512) return `an error of ${error}, which the kernel does not take`;
  if (error !== 0 && body.length > 0) return 'an error with a body';
  if (bytes.readUInt32LE(0) !== bytes.length && error !== -22) return `error ${error} to a message of the wrong length`;
  const room = roomFor(opcode, bytes);
  return body.length > room ? `${body.length} bytes of body for opcode ${opcode}, which has room for ${room}` : null;
}

/** the largest body of an answer that the kernel accepts */
function roomFor(opcode: number, bytes: Buffer): number {
  const field = (at: number): number => (bytes.length >= 40 + at + 4 ? bytes.readUInt32LE(40 + at) : 0);
  switch (opcode) {
    case 1:
      return 128;
    case 3:
    case 4:
      return 104;
    case 14:
    case 27:
      return 16;
    case 15:
    case 28:
      return Math.min(field(16), 1 << 20);
    case 16:
    case 46:
      return 8;
    case 17:
      return 80;
    case 39:
      return 16 + field(28);
    default:
      return 0;
  }
}
