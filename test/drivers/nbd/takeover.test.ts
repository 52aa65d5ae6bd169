/**
 * A disk whose earlier server has died: what the next one does with the memory and the socket that the keeper has kept.
 * The dead server is played by this process, so its memory is exactly what a test wants.
 */
import { mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { KeptState } from '../../../drivers/nbd/takeover/kept-state.js';
import { memfdCreate } from '../../../system/libc.js';
import { type FakeOptions, FakeServer } from './fake-server.js';
import { openNbd, type RecordingHost, recordingHost } from './open.js';
import { uriOf } from './servers.js';

t.setTimeout(120_000);

const SIZE = 1 << 16;
/** flags, flush, FUA, zeroes, more than one connection */
const MULTI_CONN = 0x14d;

interface Stage {
  readonly fake: FakeServer;
  readonly uri: string;
  /** of the dead server */
  readonly old: Socket;
  readonly state: KeptState;
}

/** A server, a connection of the dead server to it, and the memory of that. */
async function staged(t: Test, options: Partial<FakeOptions> = {}): Promise<Stage> {
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const fake = await FakeServer.start(t, socket, { bytes: Buffer.alloc(SIZE), flags: MULTI_CONN, ...options });
  const old = connect(socket);
  await new Promise((resolve) => old.once('connect', resolve));
  old.on('error', () => {});
  t.teardown(() => old.destroy());
  return { fake, uri: uriOf(socket), old, state: KeptState.create() };
}

function fdOf(socket: Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}

/** The next server of the disk. */
async function takenOver(
  t: Test,
  { uri, old, fake }: Stage,
  { stateFd, options = {} }: { readonly stateFd: number; readonly options?: Record<string, string> },
): Promise<{ disk: Disk; host: RecordingHost }> {
  const host = recordingHost();
  const { flags = 0x4d, bytes } = fake.options;
  const facts = { size: bytes.length, flags, minimumBytes: 1, maximumBytes: 32 << 20, hasExtents: false };
  const raw = await openNbd(uri, { options, host, kept: { facts, fds: [stateFd, fdOf(old)] } });
  const disk = frontDisk(raw, { readOnly: false });
  t.teardown(() => disk.close());
  return { disk, host };
}

t.test('memory that no server has made is not written; what may be in flight is in doubt', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'nbd-')), 'file');
  writeFileSync(path, Buffer.alloc(1 << 20, 'x'));
  const otherVersion = KeptState.create();
  otherVersion.received.fill(0xff);
  new Int32Array(otherVersion.buffer.buffer, 0, 2)[1] = 99;
  const cases: Record<string, number> = {
    'a file': openSync(path, 'r+'),
    'a memory that is too short': memfdCreate('short'),
    'a descriptor that is not open': 1 << 20,
    'another version': otherVersion.fd,
  };
  for (const [what, stateFd] of Object.entries(cases)) {
    const stage = await staged(t);
    const { disk, host } = await takenOver(t, stage, { stateFd, options: { doubt: '0.3' } });
    const begun = performance.now();
    await disk.write(Buffer.from('new'), 512);
    t.ok(performance.now() - begun >= 290, `${what}: a write waits`);
    t.equal(host.losses.length, 1, 'unflushed writes may be lost');
    await disk.flush();
    t.not(host.kept[0]?.fds[0], stateFd, 'the next server gets another memory');
  }
  t.ok(readFileSync(path).equals(Buffer.alloc(1 << 20, 'x')), 'the file is as it was');
});
