/**
 * The terminal of a program that draws the whole screen: keys, size, and its state, which is restored however the program
 * ends (all but SIGKILL): when it is done, on an error, on a signal, and while it is stopped by Ctrl-Z.
 *
 * The sequences are those of ECMA-48 and xterm that every terminal of today and tmux know. Node reads keys
 * (node:readline). A package for the rest, such as terminal-kit, is larger than fusetap.
 */
import { constants } from 'node:os';
import { emitKeypressEvents, type Key } from 'node:readline';

/** the second screen, without cursor and without wrapping; and back */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** within this time SIGTSTP has stopped us */
const STOP_MS = 50;

export interface TerminalEvents {
  key(name: string): void;
  resized(): void;
}

export class Terminal {
  readonly #events: TerminalEvents;
  readonly #keys = process.stdin.isTTY;
  #isEntered = false;
  #notStopped: NodeJS.Timeout | undefined;

  constructor(events: TerminalEvents) {
    this.#events = events;
  }

  get columns(): number {
    return process.stdout.columns || 80;
  }

  get rows(): number {
    return process.stdout.rows || 24;
  }

  /** Takes the screen. It is given back when the process exits, or by `leave`. */
  enter(): void {
    if (this.#keys) {
      emitKeypressEvents(process.stdin);
      process.stdin.on('keypress', this.#pressed);
    }
    process.stdout.on('resize', this.#resized);
    process.on('exit', this.#restore);
    // the message of an error must not be on the screen that goes
    process.on('uncaughtExceptionMonitor', this.#restore);
    for (const signal of SIGNALS) process.on(signal, this.#ended);
    process.on('SIGCONT', this.#continued).on('SIGTSTP', this.#stopped);
    this.#take();
  }

  leave(): void {
    this.#restore();
    clearTimeout(this.#notStopped);
    process.off('SIGTSTP', this.#stopped);
    process.stdin.off('keypress', this.#pressed).pause();
    process.stdout.off('resize', this.#resized);
    process.off('exit', this.#restore).off('uncaughtExceptionMonitor', this.#restore).off('SIGCONT', this.#continued);
    for (const signal of SIGNALS) process.off(signal, this.#ended);
  }

  /** Shows the lines, which must not be wider than the terminal. Lines that do not fit below are left out. */
  draw(lines: readonly string[]): void {
    if (!this.#isEntered) return;
    const shown = lines.slice(0, this.rows).map((line) => `${line}${CLEAR_LINE_END}`);
    const rest = shown.length < this.rows ? `\r\n${CLEAR_BELOW}` : '';
    process.stdout.write(`${HOME}${shown.join('\r\n')}${rest}`);
  }

  #take(): void {
    if (this.#isEntered) return;
    this.#isEntered = true;
    if (this.#keys) process.stdin.setRawMode(true).resume();
    process.stdout.write(ENTER);
  }

  readonly #restore = (): void => {
    if (!this.#isEntered) return;
    this.#isEntered = false;
    process.stdout.write(LEAVE);
    try {
      if (this.#keys) process.stdin.setRawMode(false);
    } catch {
      // the terminal is gone
    }
  };

  readonly #ended = (signal: NodeJS.Signals): void => {
    // the exit handler restores the terminal
    process.exit(128 + constants.signals[signal]);
  };

  readonly #stopped = (): void => {
    this.#restore();
    // without a listener the signal stops this process
    process.off('SIGTSTP', this.#stopped);
    process.kill(process.pid, 'SIGTSTP');
    // the kernel does not stop a process that no shell could continue: then no SIGCONT comes
    this.#notStopped = setTimeout(() => {
      if (!this.#isEntered) this.#continued();
    }, STOP_MS);
  };

  readonly #continued = (): void => {
    clearTimeout(this.#notStopped);
    process.off('SIGTSTP', this.#stopped).on('SIGTSTP', this.#stopped);
    // the shell may have changed its mode meanwhile
    this.#isEntered = false;
    this.#take();
    this.#events.resized();
  };

  readonly #resized = (): void => this.#events.resized();

  readonly #pressed = (text: string | undefined, key: Key): void => {
    // to the whole job, as the terminal does when it is not in raw mode
    if (key.ctrl && key.name === 'z') process.kill(0, 'SIGTSTP');
    else this.#events.key(nameOf(text, key));
  };
}

function nameOf(text: string | undefined, { ctrl, name }: Key): string {
  if (ctrl) return `ctrl-${name}`;
  // a printable character is its own name: case and signs matter
  return text?.length === 1 && text > ' ' ? text : (name ?? text ?? '');
}
