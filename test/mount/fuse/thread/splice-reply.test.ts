/** Replies by splice, to a file instead of /dev/fuse, so that the bytes can be checked. */
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Window } from '../../../../drivers/driver.js';
import { SpliceReply } from '../../../../mount/fuse/thread/splice-reply.js';
import { memfdCreate } from '../../../../system/libc.js';
import { PAGE_BYTES } from '../../../../system/page.js';
import { allocateResident } from '../../../../system/resident.js';
import { patternBytes } from '../../../conformance/pattern.js';

const SIZE = 600_000;

function stage(t: Test, kind: 'memory' | 'file', start = 0): { window: Window; send: Send; sent(): Buffer } {
  const directory = mkdtempSync(join(tmpdir(), 'splice-'));
  const image = join(directory, 'image');
  writeFileSync(image, '');
  const fd = kind === 'memory' ? memfdCreate('image') : openSync(image, 'r+');
  writeSync(fd, patternBytes(0, SIZE, 1), 0, SIZE, start);
  const replies = join(directory, 'replies');
  const device = openSync(replies, 'w');
  t.teardown(() => {
    closeSync(fd);
    closeSync(device);
    rmSync(directory, { recursive: true });
  });
  const header = allocateResident(16);
  header.bytes.fill('h');
  const reply = new SpliceReply(device);
  const window: Window = { fd, start, size: SIZE, kind, readOnly: false, durable: false };
  const send: Send = (offset, length) => reply.send(window, header.address, offset, length);
  return { window, send, sent: () => readFileSync(replies) };
}

type Send = (offset: number, length: number) => boolean;

for (const kind of ['memory', 'file'] as const) {
  t.test(`${kind}: a header and the bytes, wherever they begin`, async (t) => {
    for (const start of [0, 512, 5 * 2 ** 32]) {
      const { send, sent } = stage(t, kind, start);
      const ranges = [
        [0, 256 << 10],
        [1, 256 << 10],
        [PAGE_BYTES - 1, 128 << 10],
        [SIZE - (128 << 10), 128 << 10],
      ] as const;
      for (const [offset, length] of ranges) t.equal(send(offset, length), true, `${length} bytes at ${offset}`);
      const wanted = ranges.map(([offset, length]) => [Buffer.alloc(16, 'h'), patternBytes(offset, length, 1)]);
      t.ok(Buffer.concat(wanted.flat()).equals(sent()), `from byte ${start} of the image`);
    }
  });

  t.test(
    `${kind}: bytes that the image no longer has are not sent, and no part of them comes with the next reply`,
    async (t) => {
      const { window, send, sent } = stage(t, kind);
      ftruncateSync(window.fd, 200_000);
      t.equal(send(100_000, 256 << 10), false);
      t.equal(sent().length, 0);
      t.equal(send(0, 128 << 10), true);
      t.ok(Buffer.concat([Buffer.alloc(16, 'h'), patternBytes(0, 128 << 10, 1)]).equals(sent()));
    },
  );
}

t.test('a reply that is larger than the pipe does not block', async (t) => {
  const { send, sent } = stage(t, 'memory');
  t.equal(send(0, 512 << 10), false);
  t.equal(send(0, SIZE), false);
  t.equal(sent().length, 0);
  t.equal(send(0, 256 << 10), true);
});

t.test('if the device does not support splice, the caller must write', async (t) => {
  const { window } = stage(t, 'memory');
  const header = allocateResident(16);
  const full = openSync('/dev/full', 'w');
  t.teardown(() => closeSync(full));
  const reply = new SpliceReply(full);
  t.equal(reply.send(window, header.address, 0, 128 << 10), false);
  t.equal(reply.send(window, header.address, 0, 256 << 10), false, 'and again');
});
