/** strace(1), which kills a process at one of its system calls. */
import { type ChildProcess, spawn } from 'node:child_process';
import { FusetapError } from '../../../drivers/errors.js';

const ATTACH_MS = 20_000;

export interface CallPlace {
  readonly call: string;
  /** the how many-th call of a thread, from 1: the process is killed before it */
  readonly at: number;
}

export class Strace {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  #text = '';
  #hasExited = false;

  private constructor(pid: number, { call, at }: CallPlace) {
    const inject = `inject=${call}:signal=SIGKILL:when=${at}`;
    const words = ['-f', '-o', '/dev/null', '-p', `${pid}`, '-e', `trace=${call}`, '-e', inject];
    this.#child = spawn('strace', words, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#exited = new Promise((resolve) => {
      this.#child.on('exit', () => {
        this.#hasExited = true;
        resolve();
      });
      this.#child.on('error', () => resolve());
    });
  }

  /** @returns when all threads of the process are traced */
  static async attach(pid: number, place: CallPlace): Promise<Strace> {
    const strace = new Strace(pid, place);
    await strace.#attached(pid);
    return strace;
  }

  /** Whether the process that was traced has ended. */
  get hasEnded(): boolean {
    return this.#hasExited;
  }

  /** Lets the process go, if it lives. */
  async end(): Promise<void> {
    if (!this.#hasExited) this.#child.kill('SIGINT');
    await this.#exited;
  }

  #attached(pid: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (): void =>
        reject(new FusetapError('FAILED', `strace cannot trace ${pid}: ${this.#text.trim() || 'it says nothing'}`));
      const timer = setTimeout(fail, ATTACH_MS);
      this.#child.on('error', fail);
      this.#child.on('exit', fail);
      this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        this.#text += text;
        if (!/attached/.test(this.#text)) return;
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
