/** Sessions that the documentation shows: their commands, run one after another in one shell, print what stands there. */
import { readFileSync } from 'node:fs';
import type { Test } from 'tap';
import type { Bench } from '../e2e/fixtures.js';

const ROOT = new URL('../../../', import.meta.url);

/** for all commands of a script; a slow machine takes ten times as long as ours */
const SCRIPT_LIMIT_MS = 240_000;
/** a line that no command prints */
const MARK = '--- next ---';

export interface Step {
  readonly command: string;
  readonly prints: string;
}

/**
 * The text of a page, or of one section of it.
 * @param page its path from the root of the repository
 * @param heading of the section, without the number signs
 * @throws Error if the page has no such section
 */
export function readPage(page: string, heading?: string): string {
  const text = readFileSync(new URL(page, ROOT), 'utf8');
  if (heading === undefined) return text;
  const section = text.split(/^(?=#+ )/m).find((part) => part.replace(/^#+ /, '').startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`${page} has no section ${heading}`);
  return section;
}

/** The commands of the indented blocks of a text, each with what it prints. */
export function readSteps(text: string): Step[] {
  const steps = text.matchAll(/^ {4}\$ (.*)\n((?: {4}(?!\$ ).*\n)*)/gm);
  return [...steps].map(([, command = '', prints = '']) => ({ command, prints: prints.replaceAll(/^ {4}/gm, '') }));
}

/** The indented blocks of a text, whose lines are all commands. */
export function readScripts(text: string): string[] {
  return (text.match(/(^ {4}.*\n|^\n(?= {4}))+/gm) ?? []).map((block) => block.replaceAll(/^ {4}/gm, ''));
}

/**
 * Runs commands in a shell that has the `fusetap` under test. Its output has stderr too.
 * @param words the program that runs the shell, with its options: `unshare --mount`
 */
export function runScript(
  bench: Bench,
  lines: readonly string[],
  words: readonly string[] = [],
): ReturnType<Bench['execute']> {
  const script = ['exec 2>&1', 'fusetap() { "$NODE" "$CLI" "$@"; }', ...lines].join('\n');
  const [program = '', ...args] = [...words, 'bash', '-c', script.replaceAll('/run/fusetap', bench.runtimeDir)];
  return bench.execute(program, args, {
    env: { NODE: process.execPath, CLI: bench.program },
    timeoutMs: SCRIPT_LIMIT_MS,
  });
}

/** Runs the steps and compares what each prints. */
export async function playSession(t: Test, bench: Bench, steps: readonly Step[]): Promise<void> {
  const lines = steps.flatMap(({ command }) => [command, `echo '${MARK}'`]);
  const { stdout } = await runScript(bench, lines);
  const printed = stdout.split(`${MARK}\n`);
  for (const [index, { command, prints }] of steps.entries()) {
    t.equal(plain(bench, printed[index] ?? ''), plain(bench, prints), command);
  }
}

/** Without what differs from run to run. */
function plain(bench: Bench, text: string): string {
  return (
    text
      .trimEnd()
      .replaceAll(bench.runtimeDir, '/run/fusetap')
      .replaceAll(bench.directory, '/img')
      .replace(/\/dev\/loop\d+/g, '/dev/loopN')
      .replace(/\bpid \d+/g, 'pid N')
      // the width of a column depends on its longest path
      .replace(/IMAGE +MOUNTED/, 'IMAGE  MOUNTED')
  );
}
