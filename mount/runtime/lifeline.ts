/**
 * For a bus that was started for one process and its command, by `fusetap run`: tells the keeper that both are gone,
 * also after SIGKILL.
 *
 *      run ── socket ──► keeper      the pid of the command, in one line; end of file: run is gone
 *
 * The command does not inherit the socket, because some programs complain about unknown descriptors.
 */
import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { isRunning, readStartTime } from '../../system/proc.js';

const POLL_MS = 500;

/** For the keeper: resolves when the process at the other end and its command have ended. */
export async function awaitAbandoned(fd: number): Promise<void> {
  const socket = new Socket({ fd, readable: true, writable: false });
  let told = '';
  let startTime: string | null = null;
  await new Promise<void>((resolve) => {
    socket.setEncoding('utf8').on('data', (text: string) => {
      told += text;
      startTime ??= told.endsWith('\n') ? startTimeOf(Number(told)) : null;
    });
    socket.on('error', () => {});
    socket.on('close', resolve);
  });
  while (startTime !== null && isRunning(Number(told), startTime)) await delay(POLL_MS);
}

/** The start time of a process; null if it is gone or cannot be read now. */
function startTimeOf(pid: number): string | null {
  try {
    return readStartTime(pid);
  } catch {
    return null;
  }
}

/** For the process for which the bus is started. */
export class Lifeline {
  #socket: Socket | null = null;

  /** Keeps the socket open until this process ends; the socket does not keep the process alive. */
  hold(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.unref();
  }

  /** Tells the keeper the pid of the command: the bus stays as long as the command lives. */
  tell(pid: number): void {
    this.#socket?.write(`${pid}\n`);
  }
}
