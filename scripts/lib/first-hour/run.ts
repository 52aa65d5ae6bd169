/**
 * The first hour of a new user, replayed. See scripts/first-hour.
 *
 *      chapters.ts ──► play.ts types into terminals of stage.ts ──► page.ts writes docs/first-hour.md
 */
import { readFile, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CHAPTERS } from './chapters.js';
import { commandsOf, drawPage } from './page.js';
import { type PlayedChapter, playChapter } from './play.js';
import { Stage } from './stage.js';

const PAGE = resolve(import.meta.dirname, '../../../../docs/first-hour.md');

const HELP = `scripts/first-hour: types the first hour of a new user into real shells, and writes docs/first-hour.md

  --check    write nothing; fail if a step does not do what it should, or if the page has other commands
  --help     print this help

Needs root, loop devices, tmux, bash, zsh and fish. Nothing of it is left behind.`;

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { check: { type: 'boolean' }, help: { type: 'boolean' } } });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const stage = await Stage.make();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => void stage.clear().finally(() => process.exit(128 + constants.signals[signal])));
  }
  try {
    const page = drawPage(await play(stage), stage);
    if (!values.check) await writeFile(PAGE, page);
    return values.check ? await compare(page) : 0;
  } catch (error) {
    console.error(`first-hour: ${(error as Error).message}`);
    return 1;
  } finally {
    await stage.clear();
  }
}

/** @throws Error if a step does not do what it should, or if something is left at the end */
async function play(stage: Stage): Promise<PlayedChapter[]> {
  const played: PlayedChapter[] = [];
  for (const chapter of CHAPTERS) {
    const begun = performance.now();
    played.push(await playChapter(stage, chapter));
    console.error(`first-hour: ${chapter.title}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  }
  const left = await stage.leftovers();
  if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
  return played;
}

/** Compares the commands: words of the output may change from machine to machine. */
async function compare(page: string): Promise<number> {
  const [is, should] = [commandsOf(await readFile(PAGE, 'utf8')), commandsOf(page)];
  const index = should.findIndex((line, i) => line !== is[i]);
  if (index < 0 && is.length === should.length) return 0;
  console.error(
    `first-hour: docs/first-hour.md has '${is[index]}' where '${should[index]}' was typed: run scripts/first-hour`,
  );
  return 1;
}

process.exitCode = await main();
