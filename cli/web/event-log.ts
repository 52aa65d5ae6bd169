/** The events of all buses, as their logs have them. The newest lines are kept for clients that come later. */
import { escapeControls } from '../../drivers/quote.js';
import { followLogs, type LineOfBus } from '../../mount/log/all-logs.js';

/** A line of a log, numbered over all buses. */
export interface WebEvent {
  readonly id: number;
  readonly bus: string;
  readonly event: string;
  readonly text: string;
}

/** how many lines are kept */
const KEPT = 300;
/** a line is cut there: the output of a process may be long */
const MOST_TEXT = 600;

export class EventLog {
  #lines: WebEvent[] = [];
  #last = 0;

  /** Follows all logs until the signal is aborted. */
  async follow(runtimeDir: string, signal: AbortSignal): Promise<void> {
    for await (const line of followLogs(runtimeDir, signal)) this.#add(line);
  }

  /** The lines after one of them. */
  after(id: number): WebEvent[] {
    return this.#lines.filter((line) => line.id > id);
  }

  #add({ bus, text, record }: LineOfBus): void {
    this.#last += 1;
    this.#lines.push({ id: this.#last, bus, event: record.event, text: escapeControls(text.slice(0, MOST_TEXT)) });
    if (this.#lines.length > 2 * KEPT) this.#lines = this.#lines.slice(-KEPT);
  }
}
