/** Runs tap-ctl on a bench. */
import { fileURLToPath } from 'node:url';
import type { Outcome } from './command.js';
import type { Bench } from './fixtures.js';

export const PROGRAM = fileURLToPath(new URL('../../cli/tap-ctl/main.cjs', import.meta.url));

/** Runs tap-ctl to its end, its output in a pipe. @param line its words, with one space between them */
export function tap(bench: Bench, line: string): Promise<Outcome> {
  return bench.execute(process.execPath, [PROGRAM, ...line.split(' ')]);
}

/** The output of a tap-ctl that must succeed, without the end of its line. */
export async function print(bench: Bench, line: string): Promise<string> {
  const { status, stdout, stderr } = await tap(bench, line);
  if (status === 0 && stderr === '') return stdout.trimEnd();
  throw new Error(`tap-ctl ${line}\nended with ${status}: ${stderr}`);
}
