/**
 * For a bus that was started for one process and its command, by `fusetap run`: tells the keeper that both are gone,
 * also after SIGKILL.
 *
 *      run ── socket ──► keeper      the pid of the command, in one line; end of file: run is gone
 *
 * The command does not inherit the socket, because some programs complain about unknown descriptors.
 */
import { readFile } from 'node:fs/promises';
import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { eachProcess, isBelow, isRunning, readStartTime } from '../../system/proc.js';
import { within } from '../../system/within.js';

const POLL_MS = 500;
const READ_LIMIT_MS = 1_000;
const DEVICE = 'FUSETAP_DEVICE=';

/**
 * For the keeper: resolves when the process at the other end and its command have ended.
 * @param mountpoint of the bus
 */
export async function awaitAbandoned(fd: number, mountpoint: string): Promise<void> {
  const command = await readCommandUntilEnd(fd);
  // `run` may have been killed after it started the command, and before it told the pid
  const commands = command === null ? await usersOf(mountpoint) : [command];
  await Promise.all(commands.map(hasEnded));
}

interface Command {
  readonly pid: number;
  /** null if it has ended before it could be read */
  readonly startTime: string | null;
}

/** Waits for the end of the process at the other end. @returns null if it told no command */
async function readCommandUntilEnd(fd: number): Promise<Command | null> {
  const socket = new Socket({ fd, readable: true, writable: false });
  let told = '';
  let command: Command | null = null;
  await new Promise<void>((resolve) => {
    socket.setEncoding('utf8').on('data', (text: string) => {
      told += text;
      if (told.endsWith('\n')) command ??= commandOf(Number(told));
    });
    socket.on('error', () => {});
    socket.on('close', resolve);
  });
  return command;
}

const commandOf = (pid: number): Command => ({ pid, startTime: startTimeOf(pid) });

/** The processes that `run` gave a vbd of the bus, by their environment. */
async function usersOf(mountpoint: string): Promise<Command[]> {
  const found: Command[] = [];
  for await (const pid of eachProcess()) {
    const words = (await environmentOf(pid)).split('\0');
    const device = words.find((word) => word.startsWith(DEVICE))?.slice(DEVICE.length);
    if (device !== undefined && isBelow(device, mountpoint)) found.push(commandOf(pid));
  }
  return found;
}

/** Empty if it cannot be read: of a process whose memory is locked, it would be waited for without end. */
function environmentOf(pid: number): Promise<string> {
  return within(
    readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''),
    READ_LIMIT_MS,
    '',
  );
}

async function hasEnded({ pid, startTime }: Command): Promise<void> {
  while (startTime !== null && isRunning(pid, startTime)) await delay(POLL_MS);
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
