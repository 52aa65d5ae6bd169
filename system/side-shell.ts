/**
 * A shell that asks file systems questions, so that this process never waits for a file system that hangs.
 *
 * Each question is a command in a process of its own. A command that never ends costs only that process; a blocked
 * thread of this process would be lost for good and would keep this process from being reaped. Start the shell before
 * an image is opened, so that neither the shell nor its children inherit the image's descriptor.
 */
import type { ChildProcess } from 'node:child_process';
import { builtin } from './builtin.js';

/**
 * An answer is one line. `jobs` reaps the children that have ended, after each line read. Commands find in $fresh the
 * option that makes stat(1) ask the file system itself (since coreutils 8.32): an answer from the kernel's cache proves
 * nothing.
 */
const LOOP = String.raw`
fresh=--cached=never
stat $fresh / > /dev/null 2>&1 || fresh=
while read -r id command; do
  { answer=$(eval "$command" 2>&1); printf '%s %s\n' "$id" "$answer"; } &
  jobs > /dev/null 2>&1
done`;

export class SideShell {
  #child: ChildProcess | null = null;
  readonly #waiting = new Map<number, (answer: string | null) => void>();
  #nextId = 1;
  #text = '';

  constructor() {
    this.#begin();
  }

  #begin(): ChildProcess {
    const env = { PATH: `${process.env.PATH}:/usr/bin:/bin`, LC_ALL: 'C', TZ: 'UTC0' };
    const child = builtin.childProcess.spawn('/bin/sh', ['-c', LOOP], {
      cwd: '/',
      env,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.#child = child;
    const over = (): void => {
      if (this.#child !== child) return;
      this.#child = null;
      for (const resolve of this.#waiting.values()) resolve(null);
      this.#waiting.clear();
    };
    child.on('exit', over).on('error', over);
    child.stdin.on('error', () => {});
    child.stdout.setEncoding('latin1').on('data', (text: string) => this.#take(text));
    child.unref();
    for (const stream of [child.stdin, child.stdout]) (stream as unknown as { unref(): void }).unref();
    return child;
  }

  #take(text: string): void {
    const lines = (this.#text + text).split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      const at = line.indexOf(' ');
      const id = Number(line.slice(0, at));
      this.#waiting.get(id)?.(line.slice(at + 1));
      this.#waiting.delete(id);
    }
  }

  /**
   * Runs a command, which may never end.
   * @param command for sh; its output must be one line of less than 4 KiB
   * @returns its output; null if the shell itself has died
   */
  run(command: string): Promise<string | null> {
    const child = this.#child ?? this.#begin();
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      child.stdin?.write(`${id} ${command}\n`);
    });
  }
}

/** Quotes a word for sh. The word must not contain a line end. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
