/**
 * What the page shows, once a second, for all its clients together. Nothing is asked while there is no client.
 *
 *      BusWatch.look ──► state ──┐
 *      EventLog.after ──► log ───┴──► each client, as server-sent events
 */
import { setTimeout as delay } from 'node:timers/promises';
import { escapeControls } from '../../drivers/quote.js';
import { BusWatch } from '../../mount/client/watching/bus-watch.js';
import type { BusRates, VbdRates } from '../../mount/client/watching/rates.js';
import { EventLog } from './event-log.js';

const INTERVAL_MS = 1_000;

/** A client: takes a message of the stream. */
export interface Client {
  /** the last line of the log that it has */
  seen: number;
  send(message: string): void;
}

export class Feed {
  readonly #runtimeDir: string;
  readonly #events = new EventLog();
  readonly #clients = new Set<Client>();
  readonly #ending = new AbortController();
  #isRunning = false;
  #isFollowing = false;

  constructor(runtimeDir: string) {
    this.#runtimeDir = runtimeDir;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** @returns a function that takes the client out again */
  add(client: Client): () => void {
    this.#clients.add(client);
    if (!this.#isRunning) void this.#run();
    return () => void this.#clients.delete(client);
  }

  close(): void {
    this.#ending.abort();
    this.#clients.clear();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    // a new one each time: rates are those since its first look
    const watch = new BusWatch(this.#runtimeDir);
    const { signal } = this.#ending;
    this.#followLogs();
    try {
      while (this.#clients.size > 0) {
        this.#tell(await this.#look(watch));
        await delay(INTERVAL_MS, undefined, { signal }).catch(() => {});
      }
    } finally {
      watch.close();
      this.#isRunning = false;
    }
  }

  /** From the first client on, so that no line is missed while there is none. */
  #followLogs(): void {
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    void this.#events.follow(this.#runtimeDir, this.#ending.signal);
  }

  async #look(watch: BusWatch): Promise<object> {
    try {
      const buses = await watch.look();
      return { trouble: null, buses: buses.map(shownBus) };
    } catch (error) {
      // the next look may succeed
      return { trouble: escapeControls(error instanceof Error ? error.message : String(error)), buses: null };
    }
  }

  #tell(state: object): void {
    const message = `event: state\ndata: ${JSON.stringify(state)}\n\n`;
    for (const client of this.#clients) {
      const lines = this.#events.after(client.seen);
      client.seen = lines.at(-1)?.id ?? client.seen;
      if (lines.length > 0) client.send(`id: ${client.seen}\nevent: log\ndata: ${JSON.stringify(lines)}\n\n`);
      client.send(message);
    }
  }
}

/** What the page shows of a bus. */
function shownBus({ bus, state, trouble, seconds, restarts, newRestarts, server, waiting, vbds }: BusRates): object {
  return {
    ...{ bus, state, seconds, restarts, newRestarts, waiting },
    trouble: trouble === null ? null : escapeControls(trouble),
    serverPid: server?.pid ?? null,
    cpuPercent: server?.cpuPercent ?? null,
    memoryBytes: server === null ? null : (server.pssBytes ?? server.rssBytes),
    vbds: vbds.map(shownVbd),
  };
}

function shownVbd(vbd: VbdRates): object {
  const { vdev, disk, driver, image, mode, size, state, passthrough, broken, latencyUs, queue, read, write } = vbd;
  return {
    ...{ vdev, disk, mode, size, state, passthrough, queue, p50: latencyUs.p50, p99: latencyUs.p99 },
    image: escapeControls(image === null ? driver : `${driver}:${image}`),
    broken: broken === null ? null : escapeControls(broken),
    errors: read.errors + write.errors + vbd.flush.errors + vbd.discard.errors,
    read: shownKind(read),
    write: shownKind(write),
  };
}

function shownKind({ perSecond, bytesPerSecond, requests, bytes }: VbdRates['read']): object {
  return { perSecond, bytesPerSecond, requests, bytes };
}
