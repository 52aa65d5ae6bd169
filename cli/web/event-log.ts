/** The events of all buses, as their logs have them. The newest lines are kept for clients that come later. */
import { setTimeout as delay } from 'node:timers/promises';
import { escapeControls } from '../../drivers/quote.js';
import { type LineOfBus, OpenLogs } from '../../mount/log/all-logs.js';

/** A line of a log, numbered over all buses. */
export interface WebEvent {
  readonly id: number;
  readonly bus: string;
  readonly event: string;
  readonly text: string;
}

/** how many lines are kept */
const KEPT = 300;
/** the page is told once a second */
const POLL_MS = 1_000;
/** of each log, this much of its end is read first: about as many lines as are kept */
const BEGIN_BYTES = 64 << 10;
/** a line is cut there: the output of a process may be long */
const MOST_TEXT = 600;

export class EventLog {
  #lines: WebEvent[] = [];
  #last = 0;

  /** Follows all logs until the signal is aborted. What cannot be read becomes an event, once, and is tried again. */
  async follow(runtimeDir: string, signal: AbortSignal): Promise<void> {
    const logs = new OpenLogs(runtimeDir, BEGIN_BYTES);
    let told: string | null = null;
    try {
      while (!signal.aborted) {
        try {
          for (const line of logs.take()) this.#add(line);
          told = null;
        } catch (error) {
          const text = `the logs cannot be read: ${error instanceof Error ? error.message : String(error)}`;
          if (text !== told) this.#keep({ bus: '', event: 'unreadable', text });
          told = text;
        }
        await delay(POLL_MS, undefined, { signal }).catch(() => {});
      }
    } finally {
      logs.close();
    }
  }

  /** The lines after one of them. */
  after(id: number): WebEvent[] {
    return this.#lines.filter((line) => line.id > id);
  }

  #add({ bus, text, record }: LineOfBus): void {
    this.#keep({ bus, event: record.event, text });
  }

  #keep({ bus, event, text }: Omit<WebEvent, 'id'>): void {
    this.#last += 1;
    this.#lines.push({ id: this.#last, bus, event, text: escapeControls(text.slice(0, MOST_TEXT)) });
    if (this.#lines.length > 2 * KEPT) this.#lines = this.#lines.slice(-KEPT);
  }
}
