/**
 * For a bus that was begun for one process and its command, by `fusetap run`: how the keeper learns that both are gone, also
 * where SIGKILL ended them.
 *
 *      run ── socket ──► keeper      the pid of the command, in one line; its end: run is gone
 *
 * The command does not get the socket: programs complain of descriptors that they do not know.
 */
import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { isRunning, readStartTime } from '../../system/proc.js';

const POLL_MS = 500;

/** Of the keeper: resolves when the process at the other end, and the command that it told of, have ended. */
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

/** Null also if it cannot be known now. */
function startTimeOf(pid: number): string | null {
  try {
    return readStartTime(pid);
  } catch {
    return null;
  }
}

/** Of the process that the bus is begun for. */
export class Lifeline {
  #socket: Socket | null = null;

  /** It is held until this process ends, and does not keep it from ending. */
  hold(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', () => {});
    socket.unref();
  }

  /** The bus stays for as long as that process lives, too. */
  tell(pid: number): void {
    this.#socket?.write(`${pid}\n`);
  }
}
