/**
 * Captures the requests that the kernel of this machine sends to a FUSE server, one of each kind, and prints them as
 * the source of requests.ts. Needs root; run it after a build, from the top of the repository:
 *
 *     node dist/test/mount/fuse/captured/capture.js > test/mount/fuse/captured/requests.ts && npm run format
 *
 * A client process does one act after another; requests that arrive meanwhile belong to that act. The Dispatcher
 * answers them over disks in a buffer, so that the next acts work.
 */
import { read as readCallback, rmdirSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, open } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Dispatcher } from '../../../../mount/fuse/event-loop/dispatch.js';
import { answerInit } from '../../../../mount/fuse/mounting/negotiate.js';
import { Reply } from '../../../../mount/fuse/protocol/message.js';
import { MNT_DETACH, mount, umount2 } from '../../../../system/libc.js';
import { type Client, startClient } from '../client.js';
import { addFile, makeDispatchContext, plainDisk } from '../dispatch-fixture.js';

export interface Captured {
  /** what the client did */
  readonly act: string;
  readonly opcode: number;
  readonly hex: string;
}

const readInto = promisify(readCallback);
const DISK_BYTES = 1 << 20;
const O_RDWR = 2;
const O_DSYNC = 0o10000;
const O_TRUNC = 0o1000;
const BLKSSZGET = 0x1268;

type Act = readonly [act: string, run: (client: Client, fd: () => Promise<number>) => Promise<unknown>];

/** The acts, with numbers that are easy to distinguish. Some acts fail on purpose. */
const ACTS: readonly Act[] = [
  ['stat xvda', (c) => c.do('stat', 'xvda')],
  ['stat nothing', (c) => c.errno('stat', 'nothing')],
  ['list', (c) => c.do('list')],
  ['stat xvdc', (c) => c.do('stat', 'xvdc')],
  ['statfs', (c) => c.do('statfs')],
  ['open', (_, fd) => fd()],
  ['fstat', async (c, fd) => c.do('fstat', await fd())],
  ['pread 4096 at 8192', async (c, fd) => c.do('pread', await fd(), 4096, 8192)],
  ['pread 512 at 2^53 + 2', async (c, fd) => c.do('pread', await fd(), 512, '9007199254740994')],
  ['pwrite 3 bytes at 4098', async (c, fd) => c.do('pwrite', await fd(), 'abcdef', 4098)],
  ['fsync', async (c, fd) => c.do('fsync', await fd())],
  ['fdatasync', async (c, fd) => c.do('fdatasync', await fd())],
  ['fallocate 0', async (c, fd) => c.errno('fallocate', await fd(), 0, 4096, 8192)],
  ['fallocate keep size', async (c, fd) => c.errno('fallocate', await fd(), 1, 4096, 8192)],
  ['fallocate punch', async (c, fd) => c.do('fallocate', await fd(), 3, 12288, 20480)],
  ['fallocate zero', async (c, fd) => c.do('fallocate', await fd(), 0x10, 24576, 512)],
  ['seek data from 100', async (c, fd) => c.do('lseek', await fd(), 100, 3)],
  ['seek hole from 200', async (c, fd) => c.do('lseek', await fd(), 200, 4)],
  ['BLKGETSIZE64', async (c, fd) => c.do('deviceSize', await fd())],
  ['BLKSSZGET', async (c, fd) => c.errno('ioctl', await fd(), BLKSSZGET)],
  ['truncate to the same size', (c) => c.do('truncate', 'xvda', DISK_BYTES)],
  ['ftruncate to 77', async (c, fd) => c.errno('ftruncate', await fd(), 77)],
  ['chmod 640', (c) => c.do('chmod', 'xvda', 0o640)],
  ['chown 11 22', (c) => c.do('chown', 'xvda', 11, 22)],
  ['utimes 1000 2000', (c) => c.do('utimes', 'xvda', 1000, 2000)],
  ['a time before the epoch', (c) => c.do('run', 'touch', '-c', '-m', '-d', '@-86400.5', 'xvda')],
  ['touch', (c) => c.do('run', 'touch', '-c', 'xvda')],
  ['open O_TRUNC', (c) => c.errno('open', 'xvda', O_RDWR | O_TRUNC)],
  [
    'O_DSYNC write of 2 bytes at 10',
    async (c) => {
      const fd = await c.do('open', 'xvda', O_RDWR | O_DSYNC);
      await c.do('pwrite', fd, 'aabb', 10);
      await c.do('close', fd);
    },
  ],
  ['ls -l', (c) => c.errno('run', 'ls', '-l', 'xvda')],
  ['sync the directory', (c) => c.do('syncDirectory')],
  ['create new', (c) => c.errno('create', 'new')],
  ['mknod pipe', (c) => c.errno('run', 'mkfifo', 'pipe')],
  ['mkdir dir', (c) => c.errno('mkdir', 'dir')],
  ['unlink xvda', (c) => c.errno('unlink', 'xvda')],
  ['rename xvda other', (c) => c.errno('rename', 'xvda', 'other')],
  ['mv xvda moved', (c) => c.errno('run', 'mv', 'xvda', 'moved')],
  ['link xvda twin', (c) => c.errno('link', 'xvda', 'twin')],
  ['symlink xvda soft', (c) => c.errno('symlink', 'xvda', 'soft')],
  ['copy xvda to xvdb', (c) => c.errno('copy', 'xvda', 'xvdb')],
  ['run it', (c) => c.errno('run', './xvdb')],
  ['close', async (c, fd) => c.do('close', await fd())],
];

function note(all: Captured[], act: string, bytes: Buffer): void {
  const opcode = bytes.readUInt32LE(4);
  const hex = bytes.toString('hex');
  // uniques, process ids and so on differ: only the body counts
  const isKnown = all.some((one) => one.opcode === opcode && one.hex.slice(80) === hex.slice(80));
  if (!isKnown) all.push({ act, opcode, hex });
}

/** Mounts on the directory and serves it; the promise resolves at umount. */
async function serve(directory: string, hear: (bytes: Buffer) => void): Promise<{ done: Promise<void> }> {
  const device = await open('/dev/fuse', 'r+');
  const data = `fd=${device.fd},rootmode=40000,user_id=0,group_id=0`;
  mount({ source: 'fusetap', target: directory, fileSystemType: 'fuse.fusetap', flags: 0, data });
  const buffer = Buffer.alloc((1 << 20) + 4096);
  const next = async (): Promise<Buffer> => {
    const { bytesRead } = await readInto(device.fd, buffer, 0, buffer.length, null);
    return Buffer.from(new Uint8Array(buffer.subarray(0, bytesRead)));
  };
  const init = await next();
  hear(init);
  const reply = new Reply(Buffer.from(new ArrayBuffer(4096)));
  answerInit(init, reply);
  writeSync(device.fd, reply.bytes, 0, reply.length);
  const dispatcher = makeDispatcher(device.fd);
  const loop = async (): Promise<void> => {
    for (;;) {
      const bytes = await next();
      hear(bytes);
      dispatcher.dispatch(0, bytes);
    }
  };
  return { done: loop().catch(() => device.close()) };
}

function makeDispatcher(deviceFd: number): Dispatcher {
  const context = makeDispatchContext(deviceFd);
  const content = Buffer.alloc(DISK_BYTES, '#!/bin/sh\nexit 7\n');
  ['xvda', 'xvdb', 'xvdc'].forEach((name, i) => {
    addFile(context, { nodeId: i + 2, name, disk: plainDisk(Buffer.from(content)), mode: 0o700 });
  });
  return new Dispatcher(context);
}

/** Makes the kernel forget all files in one batch, because nobody reads meanwhile. */
async function dropCaches(): Promise<void> {
  // the close of a client that has just ended may still come
  await delay(200);
  writeFileSync('/proc/sys/vm/drop_caches', '2');
  await delay(200);
}

async function capture(): Promise<Captured[]> {
  const all: Captured[] = [];
  let act = 'mount';
  const directory = await mkdtemp(join(tmpdir(), 'fusetap-capture-'));
  const { done } = await serve(directory, (bytes) => note(all, act, bytes));
  const client = startClient(directory);
  try {
    let opened: Promise<number> | undefined;
    const fd = (): Promise<number> => (opened ??= client.do('open', 'xvda', O_RDWR));
    for (const [name, run] of ACTS) {
      act = name;
      await run(client, fd);
    }
    await client.kill();
    act = 'forget all';
    await dropCaches();
    act = 'forget one';
    const second = startClient(directory);
    // two lookups, so that the body differs from that of a FORGET above
    await second.do('stat', 'xvdc');
    await second.do('stat', 'xvdc');
    await second.kill();
    await dropCaches();
  } finally {
    umount2(directory, MNT_DETACH);
    await done;
    rmdirSync(directory);
  }
  return all;
}

const all = await capture();
console.log(`/** What Linux ${release().replace(/-.*/, '')} sent; made by capture.ts, which says how. */
import type { Captured } from './capture.js';

export const CAPTURED: readonly Captured[] = ${JSON.stringify(all, null, 2)};`);
