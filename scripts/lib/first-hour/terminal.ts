/**
 * A real terminal with a real program in it, as a person uses it: keys go in, and the screen can be read. tmux is the
 * terminal. Each terminal has a tmux server of its own, without the user's configuration.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { until } from '../../../system/until.js';

const LOOK_EVERY_MS = 30;
const LIMIT_MS = 30_000;
/** tmux ends much faster; but it must not be waited for without a limit */
const TMUX_LIMIT_MS = 30_000;

export interface TerminalOptions {
  /** the program and its arguments */
  readonly command: readonly string[];
  readonly cwd: string;
  /** all variables of the program */
  readonly env: NodeJS.ProcessEnv;
  readonly columns?: number;
  readonly rows?: number;
}

export class Terminal {
  readonly #directory: string;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(directory: string, env: NodeJS.ProcessEnv) {
    this.#directory = directory;
    this.#env = env;
  }

  static async open({ command, cwd, env, columns = 80, rows = 24 }: TerminalOptions): Promise<Terminal> {
    const terminal = new Terminal(await mkdtemp(join(tmpdir(), 'tmux-')), { ...env, LC_ALL: 'C.UTF-8' });
    const size = ['-x', String(columns), '-y', String(rows)];
    try {
      await terminal.#tmux('new-session', '-d', '-s', 'person', ...size, '-c', cwd, '--', ...command);
      await terminal.#tmux('set-option', '-g', 'status', 'off', ';', 'set-option', '-g', 'window-size', 'manual');
      await terminal.resize(columns, rows);
    } catch (error) {
      await terminal.close();
      throw error;
    }
    return terminal;
  }

  /** Types a text as it is. */
  async type(text: string): Promise<void> {
    // tmux would take a semicolon at the end for the end of its own command
    await this.#tmux('send-keys', '-t', 'person', '-l', '--', text.replace(/;$/, '\\;'));
  }

  /** Presses keys by their names: `Enter`, `Tab`, `C-c`. */
  async press(...keys: string[]): Promise<void> {
    await this.#tmux('send-keys', '-t', 'person', ...keys);
  }

  async resize(columns: number, rows = 24): Promise<void> {
    await this.#tmux('resize-window', '-t', 'person', '-x', String(columns), '-y', String(rows));
  }

  /** The lines on the screen, without blanks at their end and without empty lines at the end. */
  async screen(): Promise<string[]> {
    return linesOf(await this.#tmux('capture-pane', '-p', '-t', 'person'));
  }

  /** The same with the lines that have left the screen; a line that was too long for the screen is one line again. */
  async history(): Promise<string[]> {
    return linesOf(await this.#tmux('capture-pane', '-p', '-J', '-S', '-', '-t', 'person'));
  }

  /** Whether a program has taken the second screen, and whether the cursor is shown. */
  async modes(): Promise<{ isSecondScreen: boolean; hasCursor: boolean }> {
    const format = '#{alternate_on} #{cursor_flag}';
    const [second, cursor] = (await this.#tmux('display-message', '-p', '-t', 'person', format)).trim().split(' ');
    return { isSecondScreen: second === '1', hasCursor: cursor === '1' };
  }

  /**
   * Waits until the screen is as wanted.
   * @param look where to look, instead of on the screen
   * @returns the lines
   * @throws Error with the lines if it does not come to that in time
   */
  async waitFor(
    what: string,
    isThere: (lines: readonly string[]) => boolean,
    look: () => Promise<string[]> = () => this.screen(),
  ): Promise<string[]> {
    let lines: string[] = [];
    const check = async (): Promise<boolean> => {
      lines = await look();
      return isThere(lines);
    };
    if (await until(check, { timeoutMs: LIMIT_MS, everyMs: LOOK_EVERY_MS })) return lines;
    throw new Error(`not on the screen within ${LIMIT_MS / 1000} s: ${what}\nthe screen:\n${lines.join('\n')}`);
  }

  /** Waits until the last line matches. */
  waitForLine(pattern: RegExp): Promise<string[]> {
    return this.waitFor(`${pattern} in the last line`, (lines) => pattern.test(lines.at(-1) ?? ''));
  }

  /** Ends the terminal and what runs in it. */
  async close(): Promise<void> {
    await this.#tmux('kill-server').catch(() => {});
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #tmux(...words: string[]): Promise<string> {
    const socket = join(this.#directory, 'socket');
    const options = { env: this.#env, timeout: TMUX_LIMIT_MS, killSignal: 'SIGKILL' } as const;
    const { stdout } = await promisify(execFile)('tmux', ['-f', '/dev/null', '-S', socket, ...words], options);
    return stdout;
  }
}

function linesOf(text: string): string[] {
  const lines = text.trimEnd().split('\n');
  return lines.map((line) => line.trimEnd());
}
