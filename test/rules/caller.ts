/**
 * A process that makes system calls on vbds on request, one after another: many files, any call that a program can make
 * on a file, and the errno if it fails. It is in Python, which has all of these calls.
 *
 *      test ── ["pwrite", 3, 4096, "…base64…"] ──► caller ──► 512, or {"errno": "ENOSPC"}
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { Test } from 'tap';
import { collect, start } from '../e2e/command.js';
import type { Bench } from '../e2e/fixtures.js';

const PROGRAM = `
import base64, ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
i64 = ctypes.c_int64

def check(result):
    if result == -1: raise OSError(ctypes.get_errno(), "")
    return result
def mapped(address):
    if address == 2**64 - 1: raise OSError(ctypes.get_errno(), "")
    return address
def through_pipe(source, at, target, to, count):
    r, w = os.pipe()
    try:
        n = os.splice(source, w, count, offset_src=at)
        return os.splice(r, target, n, offset_dst=to) if n else 0
    finally:
        os.close(r); os.close(w)
def spliced_out(fd, at, count):
    r, w = os.pipe()
    try: return os.read(r, os.splice(fd, w, count, offset_src=at))
    finally: os.close(r); os.close(w)
def sent(fd, at, count):
    r, w = os.pipe()
    try: return os.read(r, os.sendfile(w, fd, at, count))
    finally: os.close(r); os.close(w)

# writes block after block, each with its number, round and round, until it fails: how many were acknowledged
def hammer(fd, block, blocks):
    n = 0
    while True:
        try: os.pwrite(fd, n.to_bytes(8, "little") * (block // 8), n % blocks * block)
        except OSError as error: return json.dumps([n, errno.errorcode[error.errno]])
        n += 1

calls = dict(
    open=os.open, close=os.close, fsync=os.fsync, fdatasync=os.fdatasync, ftruncate=os.ftruncate,
    truncate=os.truncate, lseek=os.lseek, size=lambda fd: os.fstat(fd).st_size,
    pread=lambda fd, at, count: os.pread(fd, count, at),
    pwrite=lambda fd, at, data: os.pwrite(fd, base64.b64decode(data), at),
    pwritev2=lambda fd, at, data, flags: os.pwritev(fd, [base64.b64decode(data)], at, flags),
    append=lambda fd, data: os.write(fd, base64.b64decode(data)),
    fallocate=lambda fd, mode, at, count: check(libc.fallocate(fd, mode, i64(at), i64(count))),
    mmap=lambda fd, count, prot, flags: mapped(libc.mmap(None, count, prot, flags, fd, i64(0))),
    munmap=lambda at, count: check(libc.munmap(ctypes.c_void_p(at), count)),
    msync=lambda at, count: check(libc.msync(ctypes.c_void_p(at), count, 4)),
    mread=lambda at, count: ctypes.string_at(at, count),
    mwrite=lambda at, data: ctypes.memmove(at, base64.b64decode(data), len(base64.b64decode(data))) and None,
    hammer=hammer, sendfile=sent, splice=spliced_out, splice_into=through_pipe,
    sendfile_into=lambda fd, source, at, count: os.sendfile(fd, source, at, count),
    copy_file_range=lambda src, at, dst, to, count: os.copy_file_range(src, dst, count, at, to),
)
for line in sys.stdin:
    name, *words = json.loads(line)
    try:
        answer = calls[name](*words)
        if isinstance(answer, bytes): answer = {"bytes": base64.b64encode(answer).decode()}
    except OSError as error:
        answer = {"errno": errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP")}
    print(json.dumps(answer), flush=True)
`;

/** Debian's own where there are others: a version manager's takes its time to start. */
export const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

export const MAP_SHARED = 1;
export const MAP_PRIVATE = 2;
export const PROT_READ = 1;
export const PROT_READ_WRITE = 3;

/** The result of a failed call, for example `ENOSPC`. */
export type Errno = `E${string}`;

type Word = number | string | null;

export class Caller {
  readonly #child: ChildProcess;
  readonly #end: Promise<unknown>;
  readonly #lines: Interface;
  readonly #waiting: ((line: string | null) => void)[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#end = collect(child);
    this.#end.catch(() => {});
    this.#lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    this.#lines.on('line', (line) => this.#waiting.shift()?.(line));
    this.#lines.on('close', () => {
      for (const resolve of this.#waiting.splice(0)) resolve(null);
    });
  }

  /** Ends with the test, at the latest. @param command what it is run by, as `setpriv …` */
  static start(t: Test, bench: Bench, command: readonly string[] = []): Caller {
    const [program = PYTHON, ...args] = [...command, PYTHON, '-c', PROGRAM];
    const caller = new Caller(start(program, args, bench.options({ timeoutMs: 120_000 })));
    t.teardown(() => caller.end());
    return caller;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Does a call that is named as in PROGRAM. @returns what it returns, or the name of its errno */
  async call(name: string, ...words: (Word | Buffer)[]): Promise<Word | Buffer> {
    const plain = words.map((word) => (Buffer.isBuffer(word) ? word.toString('base64') : word));
    const answered = new Promise<string | null>((resolve) => this.#waiting.push(resolve));
    this.#child.stdin?.write(`${JSON.stringify([name, ...plain])}\n`);
    const line = await answered;
    if (line === null) throw new Error(`the caller ended at ${name}: ${JSON.stringify(await this.#end)}`);
    const answer = JSON.parse(line) as Word | { errno: Errno } | { bytes: string };
    if (answer === null || typeof answer !== 'object') return answer;
    return 'errno' in answer ? answer.errno : Buffer.from(answer.bytes, 'base64');
  }

  /** @returns a descriptor. @throws Error if it is not opened */
  async open(path: string, flags: number): Promise<number> {
    const fd = await this.call('open', path, flags);
    if (typeof fd !== 'number') throw new Error(`open ${path}: ${fd}`);
    return fd;
  }

  /** Ends the process, which closes and unmaps everything. */
  async end(): Promise<void> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5_000);
    await this.#end.catch(() => {});
    clearTimeout(timer);
  }
}
