/**
 * The events of all buses, as their logs have them. Buses are followed while they run; the newest lines are kept for clients
 * that come later.
 */
import { escapeControls } from '../../drivers/quote.js';
import { resolveBus } from '../../mount/client/index.js';
import { followLog, type LogLine, readLog } from '../../mount/client/log.js';

/** A line of a log, numbered over all buses. */
export interface WebEvent {
  readonly id: number;
  readonly bus: string;
  readonly time: string | null;
  readonly event: string;
  readonly text: string;
}

/** how many lines are kept */
const KEPT = 300;
/** how many lines of a bus that were there before are shown */
const KEPT_OF_BUS = 30;
/** a line is cut there: the output of a process may be long */
const MOST_TEXT = 600;

export class EventLog {
  readonly #runtimeDir: string;
  readonly #ending = new AbortController();
  readonly #followed = new Set<string>();
  /** the time of the newest line, by bus */
  readonly #newest = new Map<string, string>();
  #lines: WebEvent[] = [];
  #last = 0;

  constructor(runtimeDir: string) {
    this.#runtimeDir = runtimeDir;
  }

  /** Follows these buses, too. A bus that has ended is not followed any more, until it is named again. */
  follow(buses: readonly string[]): void {
    for (const bus of buses) {
      if (this.#followed.has(bus) || this.#ending.signal.aborted) continue;
      this.#followed.add(bus);
      void this.#follow(bus)
        // a log that cannot be read is tried again with the next look
        .catch(() => {})
        .finally(() => this.#followed.delete(bus));
    }
  }

  /** The lines after one of them, by their time. */
  after(id: number): WebEvent[] {
    const lines = this.#lines.filter((line) => line.id > id);
    return lines.sort((a, b) => ((a.time ?? '') < (b.time ?? '') ? -1 : 1));
  }

  /** The newest line. */
  get last(): number {
    return this.#last;
  }

  close(): void {
    this.#ending.abort();
  }

  async #follow(bus: string): Promise<void> {
    const place = await resolveBus(bus, this.#runtimeDir);
    const known = this.#newest.get(bus);
    let skipped = known === undefined ? Math.max(0, readLog(place).lines.length - KEPT_OF_BUS) : 0;
    for await (const line of followLog(place, this.#ending.signal)) {
      const time = timeOf(line);
      if (skipped-- > 0 || (known !== undefined && (time === null || time <= known))) continue;
      this.#add(bus, time, line);
    }
  }

  #add(bus: string, time: string | null, { text, record }: LogLine): void {
    if (time !== null) this.#newest.set(bus, time);
    const shown = escapeControls(text.slice(0, MOST_TEXT));
    this.#lines.push({ id: ++this.#last, bus, time, event: record.event, text: shown });
    if (this.#lines.length > 2 * KEPT) this.#lines = this.#lines.slice(-KEPT);
  }
}

function timeOf({ record }: LogLine): string | null {
  return 'time' in record && typeof record.time === 'string' ? record.time : null;
}
