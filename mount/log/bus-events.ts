/**
 * The events of a bus as they happen, for GET /events. They are read from the log, because keeper and server both write
 * there. The file is looked at only while somebody follows.
 */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { within } from '../../system/within.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { LogRecord } from '../runtime/log-line.js';
import { LogTail } from './log-tail.js';

const POLL_MS = 100;
/** how long a client may take to read the last events of a bus that ends */
const END_LIMIT_MS = 1_000;

export class BusEvents {
  readonly #place: BusPlace;
  readonly #ending = new AbortController();
  readonly #followers = new Set<Promise<void>>();

  constructor(place: BusPlace) {
    this.#place = place;
  }

  /** Each event from now on, until the bus ends or the signal is aborted. */
  async *follow(signal: AbortSignal): AsyncGenerator<LogRecord, void> {
    // first: if it fails, nobody must wait for this follower
    const fd = openSync(join(this.#place.stateDir, 'log'), 'r');
    const { promise, resolve } = withResolver();
    this.#followers.add(promise);
    const waitsUntil = AbortSignal.any([signal, this.#ending.signal]);
    try {
      const tail = new LogTail(this.#place, join(this.#place.stateDir, 'log'), fd);
      tail.skip();
      while (!signal.aborted) {
        const isLast = this.#ending.signal.aborted;
        yield* tail.take().map(({ record }) => record);
        if (isLast) return;
        await delay(POLL_MS, undefined, { signal: waitsUntil }).catch(() => {});
      }
    } finally {
      closeSync(fd);
      this.#followers.delete(promise);
      resolve();
    }
  }

  /** Lets all followers read the last events, and ends their streams. Call it after the last event. */
  async end(): Promise<void> {
    this.#ending.abort();
    await within(Promise.all(this.#followers), END_LIMIT_MS, null);
    // the end of the stream is written in the turn after
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function withResolver(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
