/** Runs system programs that mount and unmount to their end. Turns their error messages into errors of fusetap. */
import { execFile } from 'node:child_process';
import { type ErrorDetails, FusetapError } from '../../../drivers/errors.js';

/** after this time the user is told what the command waits for */
export const QUIET_MS = 3_000;

/** Is told what a command waits for if it takes long. */
export type TellWait = (text: string) => void;

/** Is told each line that a successful program wrote to stderr. */
export type TellRemark = (line: string) => void;

export interface ToolDetails extends ErrorDetails {
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}

/**
 * Runs a program to its end. There is no time limit, because the recovery of a journal or many writes to a slow disk
 * can take long.
 * @param what the failure for messages, as `cannot mount /mnt`
 * @returns the output on stdout
 * @throws FusetapError UNSUPPORTED if it is not installed, BUSY if it says so, else FAILED, with its message
 */
export function runTool(
  program: string,
  args: readonly string[],
  what: string,
  { waits, remarks, ...details }: ToolDetails = {},
): Promise<string> {
  const options = { env: { ...process.env, LC_ALL: 'C', PATH: toolPath() } };
  const timer = setTimeout(() => waits?.(`waiting for ${[program, ...args].join(' ')}`), QUIET_MS);
  return new Promise((resolve, reject) => {
    execFile(program, args, options, (error, stdout, stderr) => {
      clearTimeout(timer);
      if (error === null) {
        for (const line of linesOf(stderr)) remarks?.(line);
        return resolve(stdout);
      }
      if (error.code === 'ENOENT') {
        const message = `${what}: ${program} is not installed`;
        return reject(new FusetapError('UNSUPPORTED', message, { ...details, cause: error }));
      }
      const words =
        inOneLine(linesOf(stderr)) ??
        inOneLine(linesOf(stdout)) ??
        `${program} ended with ${error.code ?? error.signal}`;
      const code = /\bbusy\b/i.test(words) ? 'BUSY' : 'FAILED';
      reject(new FusetapError(code, `${what}: ${words}`, { ...details, cause: error }));
    });
  });
}

/** Whether a program is installed and executable. */
export async function isInstalled(program: string): Promise<boolean> {
  const { accessSync, constants } = await import('node:fs');
  return toolPath()
    .split(':')
    .some((directory) => {
      try {
        accessSync(`${directory}/${program}`, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Adds the sbin directories, which are not in every user's PATH. */
function toolPath(): string {
  return `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/local/sbin:/usr/sbin:/sbin`;
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** limits the quote: a program that is called wrongly may print pages of help */
const LINES_QUOTED = 3;

/** The message of a program as one line. Several lines are joined, because the reason is often in the second. */
export function inOneLine(lines: readonly string[]): string | undefined {
  if (lines.length === 0) return undefined;
  return lines
    .slice(0, LINES_QUOTED)
    .map((line) => line.replace(/[.:;]$/, ''))
    .join('; ');
}
