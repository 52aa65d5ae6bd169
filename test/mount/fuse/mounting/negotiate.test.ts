/** INIT: the answer to the first message of the kernel. */
import t from 'tap';
import { answerInit, type Negotiated } from '../../../../mount/fuse/mounting/negotiate.js';
import { Reply } from '../../../../mount/fuse/protocol/message.js';
import { CAPTURED } from '../captured/requests.js';
import { message, reply, struct } from '../wire.js';

function answer(bytes: Buffer): { negotiated: Negotiated; bytes: Buffer } {
  const made = new Reply(Buffer.from(new ArrayBuffer(4096)));
  made.bytes.fill(0xee);
  const negotiated = answerInit(bytes, made);
  return { negotiated, bytes: made.bytes.subarray(0, made.length) };
}

interface Init {
  readonly major?: number;
  readonly minor: number;
  readonly flags: number;
  readonly flags2?: number;
  /** of the body */
  readonly size?: number;
}

function init({ major = 7, minor, flags, flags2 = 0, size = 64 }: Init): Buffer {
  const body = struct(64, { u32: { 0: major, 4: minor, 8: 4096, 12: flags, 16: flags2 } });
  return message({ opcode: 26, unique: 2n }, body.subarray(0, size));
}

const bits = (...positions: number[]): number => positions.reduce((sum, position) => sum + 2 ** position, 0);
/** ASYNC_READ, BIG_WRITES, ASYNC_DIO, PARALLEL_DIROPS, ABORT_ERROR, MAX_PAGES, INIT_EXT */
const FLAGS = bits(0, 5, 15, 18, 21, 22, 30);
/** PASSTHROUGH, RESEND */
const FLAGS2 = bits(37 - 32, 39 - 32);

interface InitOut {
  readonly minor: number;
  readonly flags: number;
  readonly flags2: number;
  readonly readahead: number;
  readonly stackDepth: number;
}

const initOut = ({ minor, flags, flags2, readahead, stackDepth }: InitOut): Buffer =>
  struct(64, {
    u32: { 0: 7, 4: minor, 8: readahead, 12: flags, 20: 512 << 10, 24: 1, 32: flags2, 36: stackDepth },
    u16: { 16: 192, 18: 144, 28: 129 },
  });

t.test('the answer to a real INIT, byte for byte', async (t) => {
  const captured = Buffer.from(CAPTURED.find((one) => one.act === 'mount')?.hex ?? '', 'hex');
  const unique = captured.readBigUInt64LE(8);
  const { negotiated, bytes } = answer(Buffer.concat([captured]));
  const expected = initOut({ minor: 45, flags: FLAGS, flags2: FLAGS2, readahead: 131072, stackDepth: 1 });
  t.strictSame(bytes, reply(unique, 0, expected));
  t.strictSame(negotiated, { minor: 45, canResend: true, canPassThrough: true });
});

t.test('only flags that the kernel offered are used', async (t) => {
  const offered = { minor: 36, flags: bits(0, 30), flags2: bits(7) };
  const { negotiated, bytes } = answer(init(offered));
  t.strictSame(bytes, reply(2n, 0, initOut({ ...offered, readahead: 4096, stackDepth: 0 })));
  t.strictSame(negotiated, { minor: 36, canResend: true, canPassThrough: false });
});

t.test('without INIT_EXT the field flags2 is ignored', async (t) => {
  const expected = { minor: 45, canResend: false, canPassThrough: false };
  const plain = answer(init({ minor: 45, flags: FLAGS - 2 ** 30, flags2: FLAGS2 }));
  t.strictSame(plain.negotiated, expected);
  t.equal(plain.bytes.readUInt32LE(16 + 32), 0);
  const short = answer(init({ minor: 45, flags: FLAGS, flags2: FLAGS2, size: 16 }));
  t.strictSame(short.negotiated, expected, 'a message of the old length');
});

t.test('a newer kernel gets our version as the answer', async (t) => {
  t.equal(answer(init({ minor: 99, flags: FLAGS, flags2: FLAGS2 })).bytes.readUInt32LE(16 + 4), 45);
});

t.test('an older kernel is refused with its version', async (t) => {
  for (const [major, minor] of [
    [7, 30],
    [6, 45],
    [8, 0],
  ] as const) {
    t.throws(() => answer(init({ major, minor, flags: FLAGS })), {
      code: 'UNSUPPORTED',
      message: `the kernel speaks FUSE ${major}.${minor}`,
    });
  }
});

t.test('a message that is not INIT is refused', async (t) => {
  t.throws(() => answer(message({ opcode: 3 }, Buffer.alloc(16))), { code: 'FAILED', message: /opcode 3/ });
  t.throws(() => answer(init({ minor: 45, flags: FLAGS, flags2: FLAGS2 }).subarray(0, 50)), { code: 'FAILED' });
  t.throws(() => answer(Buffer.alloc(0)), { code: 'FAILED' });
});
