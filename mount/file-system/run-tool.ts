/** Programs of the system that mount and unmount: run to their end, and what they complain of as an error of ours. */
import { execFile } from 'node:child_process';
import { type ErrorDetails, FusetapError } from '../../drivers/errors.js';

/** after so long who waits is told what for */
const QUIET_MS = 3_000;

/** Is told what is waited for, where that takes long. */
export type TellWait = (text: string) => void;

/** Is told each line that a program which succeeded wrote on stderr. */
export type TellRemark = (line: string) => void;

export interface ToolDetails extends ErrorDetails {
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}

/**
 * Runs a program to its end, without a limit: a journal that is recovered, or a slow disk that much has to be written to,
 * takes the time that it takes. @returns what it printed on stdout
 * @param what for messages: what fails where it does, as `cannot mount /mnt`
 * @throws FusetapError UNSUPPORTED if it is not installed, BUSY if it says so, else FAILED, with its own words
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

/** Whether a program is there to be run. */
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

/** Administrators' programs are not on every user's path. */
function toolPath(): string {
  return `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/local/sbin:/usr/sbin:/sbin`;
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** a program that is called wrongly may print pages of help */
const LINES_QUOTED = 3;

/** What a program said, as one line: the reason often stands in its second line. */
export function inOneLine(lines: readonly string[]): string | undefined {
  if (lines.length === 0) return undefined;
  return lines
    .slice(0, LINES_QUOTED)
    .map((line) => line.replace(/[.:;]$/, ''))
    .join('; ');
}
