/** Real NBD servers for tests: nbdkit and qemu-nbd on unix sockets. They are killed at the end of the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { accepts, eventually, isInstalled } from '../../e2e/command.js';
import { standStill } from '../../e2e/stand-still.js';

const START_LIMIT_MS = 30_000;

/** Why tests with real servers cannot run; false if they can. */
export function whyNoServers(...others: string[]): string | false {
  const missing = ['nbdkit', 'qemu-nbd', 'qemu-img', ...others].filter((program) => !isInstalled(program));
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

/** Where a server listens: a unix socket, or a port of this machine. */
export type Place = { readonly socket: string } | { readonly port: number };

export class NbdServer {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #place: Place;
  #child: ChildProcess | null = null;
  #said = '';

  constructor(program: string, args: readonly string[], place: Place) {
    this.#program = program;
    this.#args = args;
    this.#place = place;
  }

  /** Starts it; resolves when it accepts connections. */
  async start(): Promise<void> {
    if ('socket' in this.#place) rmSync(this.#place.socket, { force: true });
    // nbdkit must not read from the terminal
    const child = spawn(this.#program, [...this.#args], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    child.stderr?.on('data', (text) => (this.#said += String(text)));
    await eventually(`${this.#program} listens`, START_LIMIT_MS, async () => {
      if (child.exitCode !== null) throw new Error(`${this.#program} ended: ${this.#said}`);
      return await this.#accepts();
    });
  }

  async #accepts(): Promise<boolean> {
    const place = this.#place;
    // a connection would be the one client that qemu-nbd greets at a time; the file is there before the server listens
    if ('socket' in place) return isListening(place.socket);
    return await accepts(place.port);
  }

  /** Lets it stand still. */
  async pause(): Promise<void> {
    await standStill(this.#child?.pid);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Kills it, and waits for its end. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    // qemu-nbd does not always end on SIGTERM
    child.kill('SIGKILL');
    await ended;
  }
}

/** Whether a unix socket takes connections (__SO_ACCEPTCON in its flags). */
function isListening(socket: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${socket}`) && line.split(' ')[3] === '00010000');
}

/** `nbdkit` on a socket. @param words its filters, plugin and parameters */
export function nbdkit(socket: string, words: readonly string[]): NbdServer {
  return new NbdServer('nbdkit', ['-f', '-U', socket, ...words], { socket });
}

/** `qemu-nbd` on a socket, which must be absolute. */
export function qemuNbd(socket: string, words: readonly string[]): NbdServer {
  // without -t it ends with its first client
  return new NbdServer('qemu-nbd', ['-t', '-k', socket, ...words], { socket });
}

export function uriOf(socket: string, name = ''): string {
  return `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(socket)}`;
}
