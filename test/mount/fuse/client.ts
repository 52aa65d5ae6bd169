/**
 * A program that uses a bus, for tests: I/O to a mount must never come from the process that serves it, or from the
 * process that cleans up. The program gets calls over IPC and does them one by one; `startClient` starts it.
 */
import { type ChildProcess, execFileSync, fork } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { blockDeviceSize, fallocate, ioctl, lseek } from '../../../system/libc.js';

/** the result of stat(2); times in nanoseconds as decimal strings */
export interface StatAnswer {
  ino: number;
  size: number;
  blocks: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  blksize: number;
  atimeNs: string;
  mtimeNs: string;
  ctimeNs: string;
}

function plainStat(s: fs.BigIntStats): StatAnswer {
  const { ino, size, blocks, mode, nlink, uid, gid, blksize, atimeNs, mtimeNs, ctimeNs } = s;
  const times = { atimeNs: `${atimeNs}`, mtimeNs: `${mtimeNs}`, ctimeNs: `${ctimeNs}` };
  const owner = { uid: Number(uid), gid: Number(gid), mode: Number(mode), nlink: Number(nlink) };
  return { ino: Number(ino), size: Number(size), blocks: Number(blocks), blksize: Number(blksize), ...owner, ...times };
}

function checked(result: number, syscall: string): number {
  if (result >= 0) return result;
  throw Object.assign(new Error(syscall), { errno: result });
}

/** The calls of a client; names are relative to its directory, bytes are in hex. */
function callsIn(directory: string) {
  return { ...openFileCalls(directory), ...nameCalls(directory) };
}

/** Calls on open files. */
function openFileCalls(directory: string) {
  const opened = new Set<number>();
  const close = (fd: number): void => {
    opened.delete(fd);
    fs.closeSync(fd);
  };
  return {
    open: (name: string, flags: number) => {
      const fd = fs.openSync(join(directory, name), flags);
      opened.add(fd);
      return fd;
    },
    close,
    closeAll: () => [...opened].forEach(close),
    fstat: (fd: number) => plainStat(fs.fstatSync(fd, { bigint: true })),
    pread: (fd: number, length: number, offset: number | string) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, fs.readSync(fd, bytes, 0, length, BigInt(offset))).toString('hex');
    },
    pwrite: (fd: number, hex: string, offset: number) => {
      const bytes = Buffer.from(hex, 'hex');
      return fs.writeSync(fd, bytes, 0, bytes.length, offset);
    },
    fsync: (fd: number) => fs.fsyncSync(fd),
    fdatasync: (fd: number) => fs.fdatasyncSync(fd),
    fallocate: (fd: number, mode: number, offset: number, length: number) =>
      checked(fallocate(fd, mode, offset, length), 'fallocate'),
    lseek: (fd: number, offset: number, whence: number) => checked(lseek(fd, offset, whence), 'lseek'),
    deviceSize: (fd: number) => blockDeviceSize(fd),
    ioctl: (fd: number, request: number) => checked(ioctl(fd, request, Buffer.alloc(64)), 'ioctl'),
    ftruncate: (fd: number, size: number) => fs.ftruncateSync(fd, size),
  };
}

/** Calls on names, and on the directory itself. */
function nameCalls(directory: string) {
  const at = (name: string) => join(directory, name);
  return {
    stat: (name: string) => plainStat(fs.statSync(at(name), { bigint: true })),
    list: () => fs.readdirSync(directory, { withFileTypes: true }).map((e) => [e.name, e.isFile()] as const),
    statfs: () => fs.statfsSync(directory).bsize,
    truncate: (name: string, size: number) => fs.truncateSync(at(name), size),
    chmod: (name: string, mode: number) => fs.chmodSync(at(name), mode),
    chown: (name: string, uid: number, gid: number) => fs.chownSync(at(name), uid, gid),
    utimes: (name: string, atime: number, mtime: number) => fs.utimesSync(at(name), atime, mtime),
    create: (name: string) => fs.closeSync(fs.openSync(at(name), 'wx')),
    mkdir: (name: string) => fs.mkdirSync(at(name)),
    rmdir: (name: string) => fs.rmdirSync(at(name)),
    unlink: (name: string) => fs.unlinkSync(at(name)),
    rename: (from: string, to: string) => fs.renameSync(at(from), at(to)),
    link: (from: string, to: string) => fs.linkSync(at(from), at(to)),
    symlink: (to: string, name: string) => fs.symlinkSync(to, at(name)),
    copy: (from: string, to: string) => fs.copyFileSync(at(from), at(to)),
    syncDirectory: () => {
      const fd = fs.openSync(directory, 'r');
      fs.fsyncSync(fd);
      fs.closeSync(fd);
    },
    /** runs a program inside the directory; its status is the errno */
    run: (command: string, ...args: string[]) => {
      try {
        return execFileSync(command, args, { cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      } catch (error) {
        throw Object.assign(new Error(command), { errno: (error as { status?: number }).status ?? 0 });
      }
    },
  };
}

type Calls = ReturnType<typeof callsIn>;
type CallName = keyof Calls;
interface Question {
  readonly call: CallName;
  readonly args: unknown[];
}
type Answer = { readonly result: unknown } | { readonly failed: number };

export interface Client {
  readonly pid: number;
  /** Resolves to the result of the call; rejects with the errno in the message, for example `stat: errno 2`. */
  do<N extends CallName>(call: N, ...args: Parameters<Calls[N]>): Promise<ReturnType<Calls[N]>>;
  /** The positive errno of the call; 0 if it succeeds. */
  errno<N extends CallName>(call: N, ...args: Parameters<Calls[N]>): Promise<number>;
  /** Kills it, even if it is blocked; all its files are closed. */
  kill(): Promise<void>;
}

export function startClient(directory: string): Client {
  const child = fork(fileURLToPath(import.meta.url), [directory]);
  const ask = (question: Question): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`the client ended during ${question.call}`));
      child.once('exit', ended);
      child.once('message', (answer) => {
        child.off('exit', ended);
        resolve(answer as Answer);
      });
      child.send(question);
    });
  return {
    pid: child.pid ?? 0,
    async do<N extends CallName>(call: N, ...args: Parameters<Calls[N]>) {
      const answer = await ask({ call, args });
      if ('failed' in answer) throw new Error(`${call}: errno ${answer.failed}`);
      return answer.result as ReturnType<Calls[N]>;
    },
    async errno(call, ...args) {
      const answer = await ask({ call, args });
      return 'failed' in answer ? answer.failed : 0;
    },
    kill: () => killChild(child),
  };
}

/** Sends SIGKILL, and waits until it has ended. */
export function killChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill('SIGKILL');
  });
}

function serve(directory: string): void {
  const calls = callsIn(directory) as Record<CallName, (...args: unknown[]) => unknown>;
  process.on('message', ({ call, args }: Question) => {
    let answer: Answer;
    try {
      answer = { result: calls[call](...args) ?? null };
    } catch (error) {
      answer = { failed: Math.abs((error as { errno?: number }).errno ?? 0) || 9999 };
    }
    process.send?.(answer);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve(process.argv[2] ?? '');
