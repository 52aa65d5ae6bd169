/** What a check found, one line each. A broken image can have millions of faults, so only the first lines are kept. */

const MOST_LINES = 100;

export class Findings {
  /** the first ones */
  readonly lines: string[] = [];
  count = 0;

  add(line: string): void {
    this.count += 1;
    if (this.lines.length < MOST_LINES) this.lines.push(line);
  }
}
