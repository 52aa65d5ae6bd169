/** Plays chapters in real terminals. Each step must do what it should; the result is what the screen showed. */
import { readFile } from 'node:fs/promises';
import { until } from '../../../system/until.js';
import type { BarStep, BesideStep, Chapter, CommandStep, Step, TabStep } from './chapters.js';
import type { OpenShell, Stage } from './stage.js';

/** how long a command may take on a slow machine */
const COMMAND_LIMIT_MS = 60_000;
const WIDTH = 80;

/** What the page shows of a step. */
export interface Shown {
  /** a sentence before the block; empty if the block goes on */
  readonly intro: string;
  readonly lines: readonly string[];
}

export interface PlayedChapter {
  readonly chapter: Chapter;
  readonly shown: readonly Shown[];
}

/** A progress bar, or a piece of one. */
const BAR = /\[[#-]|[#-]\]|\d%/;

/** @throws Error if a step does not do what it should */
export async function playChapter(stage: Stage, chapter: Chapter): Promise<PlayedChapter> {
  const shell = await stage.open(chapter.shell ?? 'bash', WIDTH);
  const player = new Player(stage, shell);
  try {
    for (const line of chapter.before ?? []) await player.run({ is: 'command', line });
    const shown: Shown[] = [];
    for (const step of chapter.steps) shown.push(...(await player.play(step)));
    return { chapter, shown };
  } catch (error) {
    throw new Error(`${chapter.title}: ${(error as Error).message}`);
  } finally {
    await stage.shut(shell.terminal);
  }
}

class Player {
  readonly #stage: Stage;
  readonly #shell: OpenShell;

  constructor(stage: Stage, shell: OpenShell) {
    this.#stage = stage;
    this.#shell = shell;
  }

  async play(step: Step): Promise<Shown[]> {
    switch (step.is) {
      case 'say':
        return [{ intro: step.text, lines: [] }];
      case 'command':
        return [{ intro: '', lines: [`$ ${step.line}`, ...(await this.run(step))] }];
      case 'tab':
        return [{ intro: '', lines: await this.#pressTab(step) }];
      case 'bar':
        return [{ intro: '', lines: await this.#watchBar(step) }];
      case 'beside':
        return await this.#playBeside(step);
    }
  }

  /** @returns the output */
  async run({ line, status = 0, shows }: CommandStep): Promise<string[]> {
    const { terminal } = this.#shell;
    const before = await this.#promptAt();
    const turn = await this.#turn();
    await terminal.type(this.#stage.typed(line));
    await terminal.press('Enter');
    const output = await this.#outputOf(line, before, turn);
    const exit = (await this.#readStatus()).status;
    const text = output.join('\n');
    if (exit !== status) throw new Error(`${line}: exit status ${exit}, not ${status}\n${text}`);
    if (shows !== undefined && !shows.test(text)) throw new Error(`${line}: ${shows} is not in its output\n${text}`);
    return output;
  }

  /** Waits for the next prompt. @returns the lines between the command and the prompt */
  async #outputOf(line: string, before: number, turn: number): Promise<string[]> {
    const { terminal } = this.#shell;
    const isOver = async (): Promise<boolean> => (await this.#turn()) > turn;
    if (!(await until(isOver, { timeoutMs: COMMAND_LIMIT_MS, everyMs: 20 }))) {
      throw new Error(`${line}: has not ended\n${(await terminal.screen()).join('\n')}`);
    }
    await terminal.waitForLine(/^\$$/);
    return (await terminal.history()).slice(before + 1, -1);
  }

  async #pressTab({ typed, shows }: TabStep): Promise<string[]> {
    const { terminal } = this.#shell;
    const before = await this.#promptAt();
    const turn = await this.#turn();
    await terminal.type(typed);
    await terminal.press('Tab');
    const look = async (): Promise<string[]> => (await terminal.history()).slice(before);
    const lines = await terminal.waitFor(`${shows} after ${typed}⇥`, (lines) => shows.test(lines.join('\n')), look);
    // not C-c: fish would not draw a new prompt
    await terminal.press('C-u', 'Enter');
    await this.#outputOf(typed, before, turn);
    return [`$ ${typed}⇥`, ...lines];
  }

  async #watchBar({ line, columns }: BarStep): Promise<string[]> {
    const { terminal } = this.#shell;
    await terminal.resize(columns[0] ?? WIDTH, 40);
    const before = await this.#promptAt();
    const turn = await this.#turn();
    await terminal.type(this.#stage.typed(line));
    await terminal.press('Enter');
    const bars: string[] = [];
    let last = -1;
    for (const width of columns) {
      await terminal.resize(width, 40);
      const bar = await this.#nextBar(line, last);
      last = percentOf(bar);
      bars.push(`${bar.padEnd(64)} (${width} columns)`);
    }
    const output = await this.#outputOf(line, before, turn);
    const rest = output.filter((text) => BAR.test(text));
    if (rest.length > 0) throw new Error(`${line}: its bar is still on the screen\n${output.join('\n')}`);
    await terminal.resize(WIDTH, 40);
    return [`$ ${line}`, ...bars, ...output];
  }

  /** A bar that shows more than `last` percent. @throws Error if there are several */
  async #nextBar(line: string, last: number): Promise<string> {
    const lines = await this.#shell.terminal.waitFor(`the bar of ${line}`, (screen) =>
      screen.some((text) => BAR.test(text) && percentOf(text) > last),
    );
    const bars = lines.filter((text) => BAR.test(text));
    if (bars.length > 1) throw new Error(`${line}: ${bars.length} lines of its bar\n${lines.join('\n')}`);
    return bars[0] ?? '';
  }

  async #playBeside({ line, meanwhile, begins, shows }: BesideStep): Promise<Shown[]> {
    const shell = await this.#stage.open('bash', 120);
    const other = new Player(this.#stage, shell);
    try {
      const before = await other.#promptAt();
      const turn = await other.#turn();
      await shell.terminal.type(line);
      await shell.terminal.press('Enter');
      await shell.terminal.waitFor(`${begins} of ${line}`, (lines) => begins.test(lines.join('\n')));
      const first: string[] = [];
      for (const one of meanwhile) first.push(`$ ${one}`, ...(await this.run({ is: 'command', line: one })));
      const second = await other.#outputOf(line, before, turn);
      if (!shows.test(second.join('\n'))) throw new Error(`${line}: ${shows} is not in it\n${second.join('\n')}`);
      return [
        { intro: 'In the first terminal:', lines: first },
        { intro: 'In the second one, meanwhile:', lines: [`$ ${line}`, ...second] },
      ];
    } finally {
      await this.#stage.shut(shell.terminal);
    }
  }

  /** The number of the line with the prompt, counted from the first line that the terminal showed. */
  async #promptAt(): Promise<number> {
    return (await this.#shell.terminal.history()).length - 1;
  }

  async #turn(): Promise<number> {
    return (await this.#readStatus()).turn;
  }

  async #readStatus(): Promise<{ status: number; turn: number }> {
    const [status = 0, turn = 0] = (await readFile(this.#shell.statusFile, 'utf8')).split(' ').map(Number);
    return { status, turn };
  }
}

function percentOf(bar: string): number {
  return Number(/(\d+)%/.exec(bar)?.[1] ?? -1);
}
