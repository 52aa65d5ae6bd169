/**
 * Keeps a bus findable as long as it lives: if its socket, its lock or its directory was removed or could not be made,
 * it is made again within one or two seconds.
 */
import { closeSync, lstatSync } from 'node:fs';
import type { Server } from 'node:http';
import { join } from 'node:path';
import type { Bookkeeping } from './bookkeeping.js';
import { listenOn } from './bus-files.js';
import { keepLock } from './bus-lock.js';
import { type BusPlace, makeBusDirectories } from './bus-place.js';

const LOOK_MS = 1_000;

export interface Findable {
  readonly place: BusPlace;
  readonly control: Server;
  readonly socket: 'control.sock' | 'server.sock';
  /** the lock on the bus */
  readonly lockFd: number;
  readonly books: Bookkeeping;
  /** writes the other files of the bus again */
  rewrite(): void | Promise<void>;
}

export class StayFindable {
  readonly #bus: Findable;
  #lockFd: number;
  /** `device:inode` of our socket */
  #socket: string | null = null;
  #isLooking = false;
  #timer: NodeJS.Timeout | null = null;

  constructor(bus: Findable) {
    this.#bus = bus;
    this.#lockFd = bus.lockFd;
  }

  /** Listens, and watches the socket from then on. @throws if it cannot listen; it does not watch then */
  async listen(): Promise<void> {
    await this.#listen();
    this.#watch();
  }

  /** Like `listen`, but if it cannot listen now, it does so as soon as possible. */
  async listenAtLast(): Promise<void> {
    this.#watch();
    await this.#look();
  }

  /** Stops watching. Call it before the socket is removed. */
  end(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #watch(): void {
    this.#timer ??= setInterval(() => void this.#look(), LOOK_MS).unref();
  }

  get #path(): string {
    return join(this.#bus.place.stateDir, this.#bus.socket);
  }

  async #look(): Promise<void> {
    if (this.#isLooking || (this.#socket !== null && this.#socket === inodeOf(this.#path))) return;
    this.#isLooking = true;
    const { books, socket } = this.#bus;
    try {
      await this.#comeBack();
      books.done(socket);
    } catch (error) {
      // do nothing in `again`: this timer tries it again
      books.failed(socket, error, () => Promise.reject(error));
    } finally {
      this.#isLooking = false;
    }
  }

  async #comeBack(): Promise<void> {
    const { place } = this.#bus;
    await makeBusDirectories(place, process.geteuid?.() ?? 0);
    await this.#listen();
    const lockFd = await keepLock(place, this.#lockFd);
    if (lockFd !== this.#lockFd && this.#lockFd !== this.#bus.lockFd) closeSync(this.#lockFd);
    this.#lockFd = lockFd;
    await this.#bus.rewrite();
  }

  async #listen(): Promise<void> {
    const { control, place, socket } = this.#bus;
    // connections of requests under way stay open
    if (control.listening) control.close();
    await listenOn(control, place.stateDir, socket);
    this.#socket = inodeOf(this.#path);
  }
}

function inodeOf(path: string): string | null {
  try {
    const { dev, ino } = lstatSync(path);
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}
