/** Programs of the system that mount and unmount: run to their end, and what they complain of as an error of ours. */
import { execFile } from 'node:child_process';
import { type ErrorDetails, FusetapError } from '../../../drivers/errors.js';

/** after so long who waits is told what for */
const QUIET_MS = 3_000;

/** Is told what is waited for, where that takes long. */
export type TellWait = (text: string) => void;

export interface ToolDetails extends ErrorDetails {
  readonly waits?: TellWait | undefined;
}

/**
 * Runs a program to its end, without a limit: a journal that is recovered, or a slow disk that much has to be written to,
 * takes the time that it takes. @returns what it printed on stdout
 * @param what for messages: what fails where it does, as `cannot mount /mnt`
 * @throws FusetapError UNSUPPORTED where it is not installed, BUSY where it says so, else FAILED, with its own words
 */
export function runTool(
  program: string,
  args: readonly string[],
  what: string,
  { waits, ...details }: ToolDetails = {},
): Promise<string> {
  const options = { env: { ...process.env, LC_ALL: 'C', PATH: toolPath() } };
  const timer = setTimeout(() => waits?.(`waiting for ${[program, ...args].join(' ')}`), QUIET_MS);
  return new Promise((resolve, reject) => {
    execFile(program, args, options, (error, stdout, stderr) => {
      clearTimeout(timer);
      if (error === null) return resolve(stdout);
      if (error.code === 'ENOENT') {
        const message = `${what}: ${program} is not installed`;
        return reject(new FusetapError('UNSUPPORTED', message, { ...details, cause: error }));
      }
      const words = firstLine(stderr) ?? firstLine(stdout) ?? `${program} ended with ${error.code ?? error.signal}`;
      const said = words.replace(/\.$/, '');
      const code = /\bbusy\b/i.test(said) ? 'BUSY' : 'FAILED';
      reject(new FusetapError(code, `${what}: ${said}`, { ...details, cause: error }));
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

function firstLine(text: string): string | undefined {
  return text
    .split('\n')
    .map((line) => line.trim())
    .find((line) => line !== '');
}
