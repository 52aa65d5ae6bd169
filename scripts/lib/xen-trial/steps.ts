/** Programs that one run executes one after the other, and whatever it has to undo if it is interrupted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { FusetapError } from '../../../drivers/errors.js';

/** The running programs, so that an interrupt ends them. */
const running = new Set<ChildProcess>();

/** Starts a program that ends with this process, however this process ends. */
export function begin(words: readonly string[], stdio: 'pipe' | 'ignore', cwd = '/'): ChildProcess {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...words], { stdio: [stdio, 'pipe', 'pipe'], cwd });
  running.add(child);
  child.once('close', () => running.delete(child));
  return child;
}

export function killAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

/**
 * Runs a program to its end, with its output in the log.
 * @returns its standard output
 * @throws FusetapError FAILED, with the last line of its messages
 */
export async function execute(words: readonly string[], log: string, cwd = '/'): Promise<string> {
  const child = begin(words, 'ignore', cwd);
  const file = createWriteStream(log, { flags: 'a' });
  file.write(`$ ${words.join(' ')}\n`);
  let [output, messages] = ['', ''];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    file.write(text);
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    messages += text;
    file.write(text);
  });
  const [status] = (await once(child, 'close')) as [number | null];
  file.end();
  if (status === 0) return output;
  const last = messages.trim().split('\n').at(-1) || output.trim().split('\n').at(-1) || 'no message';
  throw new FusetapError('FAILED', `${words.slice(0, 3).join(' ')} failed: ${last}`, {
    hint: `its output is in ${log}`,
  });
}
