/** A client of a situation whose disk is a vbd: a child process does the requests. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Client, CrashFault, patternOf } from '../../../test/crash/client.js';
import { type Expectation, SECTOR_BYTES, type Wish } from '../../../test/crash/expectation.js';
import type { Answer, MountedRequest, Numbered } from './client-main.js';

const PROGRAM = fileURLToPath(new URL('./client-main.js', import.meta.url));
const CHUNK_BYTES = 1 << 18;

export class MountedClient implements Client {
  readonly size: number;
  readonly #log: Expectation;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  readonly #exited: Promise<void>;
  #number = 0;

  constructor(path: string, log: Expectation) {
    this.size = log.size;
    this.#log = log;
    this.#child = spawn(process.execPath, [PROGRAM, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin?.on('error', () => {});
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const answer = JSON.parse(line) as Answer;
      const waiting = this.#waiting.get(answer.number);
      this.#waiting.delete(answer.number);
      waiting?.resolve(answer);
    });
    this.#exited = new Promise((resolve) => {
      this.#child.on('exit', () => {
        for (const { reject } of this.#waiting.values())
          reject(new CrashFault('the process that does the requests ended'));
        resolve();
      });
    });
  }

  async write(offset: number, wanted: number, seed: number, { durable = false } = {}): Promise<void> {
    const length = Math.min(wanted, this.size - offset);
    const bytes = patternOf(offset, length, seed);
    const request = { kind: 'write', offset, base64: bytes.toString('base64'), durable } as const;
    await this.#send({ kind: 'write', offset, length, bytes, punch: false, durable }, request);
  }

  async zero(offset: number, wanted: number, { punch = true } = {}): Promise<void> {
    const length = Math.min(wanted, this.size - offset);
    const wish = { kind: 'zero', offset, length, bytes: null, punch, durable: false } as const;
    await this.#send(wish, { kind: 'zero', offset, length, punch });
  }

  async flush(): Promise<void> {
    const flush = this.#log.beginFlush();
    await this.#ask({ kind: 'flush' });
    this.#log.endFlush(flush);
  }

  async read(offset: number, length: number): Promise<void> {
    const from = offset - (offset % SECTOR_BYTES);
    const to = Math.min(this.size, Math.ceil((offset + length) / SECTOR_BYTES) * SECTOR_BYTES);
    const { base64 = '' } = await this.#ask({ kind: 'read', offset: from, length: to - from });
    const bytes = Buffer.from(base64, 'base64');
    if (bytes.length !== to - from) throw new CrashFault(`read ${from}+${to - from} gave ${bytes.length} bytes`);
    const wrong = this.#log.compare(bytes, from);
    if (wrong !== null) throw new CrashFault(wrong);
  }

  async commit(): Promise<void> {
    throw new CrashFault('a commit is not a request on a vbd');
  }

  /** Compares all of the vbd. */
  async readAll(): Promise<void> {
    for (let at = 0; at < this.size; at += CHUNK_BYTES) await this.read(at, Math.min(CHUNK_BYTES, this.size - at));
  }

  async close(): Promise<void> {
    this.#child.stdin?.end();
    await this.#exited;
  }

  /** Ends the process, which may wait for a bus: the bus must have been aborted. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async #send(wish: Wish, request: MountedRequest): Promise<void> {
    const logged = this.#log.begin(wish);
    await this.#ask(request);
    this.#log.acknowledge(logged);
  }

  async #ask(request: MountedRequest): Promise<Answer> {
    const number = ++this.#number;
    const answer = await new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.#child.stdin?.write(`${JSON.stringify({ number, ...request } satisfies Numbered)}\n`);
    });
    if (answer.error !== undefined) throw new CrashFault(`${request.kind} fails: ${answer.error}`);
    return answer;
  }
}
