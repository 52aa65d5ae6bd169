/**
 * A client of a control socket in a process of its own, for tests that stop or kill it. It speaks HTTP by hand, so nothing
 * reads the answer on its own.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';
import { start } from '../../e2e/command.js';

/**
 * What the client does after it has sent its request:
 *
 *      stop      SIGSTOP to itself: it reads nothing
 *      read      reads, and prints the answer, and `END` at its end
 *      half      closes its side of the connection, and prints the answer
 *      leave     closes the connection
 */
export type Manner = 'stop' | 'read' | 'half' | 'leave';

const PROGRAM = `
  const [path, request, manner] = process.argv.slice(1);
  const socket = require('node:net').connect(path, () => socket.write(request, () => {
    if (manner === 'stop') return process.kill(process.pid, 'SIGSTOP');
    if (manner === 'leave') return socket.destroy();
    if (manner === 'half') socket.end();
    socket.on('data', (bytes) => process.stdout.write(bytes)).on('end', () => process.stdout.write('END'));
  }));
  setInterval(() => {}, 1000);
`;

export interface RawClient {
  /** resolves with all that it has printed when that matches */
  printed(pattern: RegExp): Promise<string>;
  /** kills it and waits until it has exited */
  kill(): Promise<void>;
}

export function rawClient(
  t: Test,
  socketPath: string,
  line: string,
  { manner, body = '', connection = 'close' }: { manner: Manner; body?: string; connection?: 'close' | 'keep-alive' },
): RawClient {
  const length = Buffer.byteLength(body);
  const head = [`${line} HTTP/1.1`, 'host: bus', `connection: ${connection}`, `content-length: ${length}`];
  const request = `${head.join('\r\n')}\r\n\r\n${body}`;
  const child: ChildProcess = start(process.execPath, ['-e', PROGRAM, socketPath, request, manner]);
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (more: string) => (text += more));
  const exited = once(child, 'exit');
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(kill);
  return {
    async printed(pattern) {
      while (!pattern.test(text)) await once(child.stdout as NodeJS.ReadableStream, 'data');
      return text;
    },
    kill,
  };
}
