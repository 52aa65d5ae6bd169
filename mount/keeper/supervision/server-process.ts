/**
 * The server as its keeper sees it: a child process that takes commands, and that may die at any time.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defined } from '../../../drivers/defined.js';
import type { ConnectionState } from '../../../drivers/driver.js';
import { FusetapError, type PlainError, toFusetapError } from '../../../drivers/errors.js';
import { E, socketPair } from '../../../system/libc.js';
import { within } from '../../../system/within.js';
import { BUS_NODE_OPTIONS, serverEnvironment } from '../../runtime/node-options.js';
import type {
  Command,
  CommandResult,
  Commands,
  Envelope,
  KeptNode,
  ServerMessage,
  ServerStart,
} from '../../server/commands.js';
import { Outbox } from './outbox.js';
import { SpareFds } from './spare-fds.js';

/** How a server may end. */
export interface ServerLife {
  /** somebody else has removed the mount */
  gone(): void;
  /** it is reaped (waitpid): none of its threads is left */
  died(how: string): void;
}

/** What a server tells its keeper without being asked. */
export interface ServerNews {
  /** the kernel forgot a node */
  forgotten(nodeId: number): void;
  /** a thread wants to fill holes of a ram image */
  memoryWanted(nodeId: number): void;
  /** a driver keeps something; the descriptors are the keeper's, also if that throws */
  keep(kept: KeptNode, fds: readonly number[]): void;
  /** a remote disk can be reached, or not any more */
  connection(keptId: number, state: ConnectionState): void;
}

export type ServerEvents = ServerLife & ServerNews;

export interface CommandOptions {
  /** aborts a command that can be stopped */
  signal?: AbortSignal | undefined;
  /** if this server dies of it, do not give the command to another one */
  once?: boolean;
  progress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  /** how long the answer may take: after that the command fails with errno ETIMEDOUT, and a late answer is ignored */
  limitMs?: number;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
  progress: CommandOptions['progress'];
}

/** descriptors 0 to 2 are standard, 3 is the channel */
const FIRST_PASSED_FD = 4;

export class ServerProcess {
  readonly #child: ChildProcess;
  readonly #outbox: Outbox;
  readonly #pending = new Map<number, Pending>();
  #events: ServerEvents | null;
  readonly #loaded: Promise<void>;
  #becameLoaded: (() => void) | null = null;
  #wasUnable: FusetapError | null = null;
  #heardAt = performance.now();
  #nextId = 1;
  #exited = false;
  #how = '';
  #exit: Promise<void>;

  /** the file that it runs */
  readonly program: string;
  #version: string | null = null;

  /**
   * Starts a server.
   * @param start its argument; the descriptors in it are those of the keeper, which the server inherits
   * @param events null if somebody will listen later: until it is told to start, a server has nothing to tell but its end
   */
  constructor(start: ServerStart, events: ServerEvents | null, program: string | null = null) {
    this.#events = events;
    this.program = program ?? OWN_PROGRAM;
    const [ours, theirs] = socketPair(true);
    try {
      this.#child = spawnServer(this.program, start, theirs);
    } catch (error) {
      closeSync(ours);
      throw error;
    } finally {
      closeSync(theirs);
    }
    this.#outbox = new Outbox(
      ours,
      (envelope) => this.#send(envelope),
      (id, error) => this.#fail(id, error),
    );
    this.#loaded = new Promise((resolve) => {
      this.#becameLoaded = resolve;
    });
    this.#exit = new Promise((resolve) => {
      const finish = (how: string): void => {
        if (this.#exited) return;
        this.#exited = true;
        this.#how = how;
        this.#outbox.end();
        this.#failPending(how);
        resolve();
        this.#events?.died(how);
      };
      this.#child.on('exit', (code, signal) => finish(signal === null ? `exit status ${code}` : `signal ${signal}`));
      this.#child.on('error', (error) => finish(error.message));
    });
    this.#child.on('message', (message) => this.#receive(message as ServerMessage));
  }

  /** Listens to a server that was started without events. */
  listen(events: ServerEvents): void {
    this.#events = events;
  }

  get exited(): boolean {
    return this.#exited;
  }

  /** known when it is loaded; null if it is older, and does not tell */
  get version(): string | null {
    return this.#version;
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  /** Resolves when the server takes commands; rejects if it dies before, or takes longer than the limit. */
  async loaded(limitMs: number): Promise<void> {
    const first = await within(Promise.race([this.#loaded, this.#exit]), limitMs, 'late');
    if (this.#wasUnable !== null) throw this.#wasUnable;
    if (!this.#exited && first !== 'late') return;
    const why = this.#exited ? this.#how : `it was not loaded within ${limitMs / 1000} s`;
    throw new FusetapError('FAILED', `the server did not start: ${why}`, { hint: 'see the log of the bus' });
  }

  /** how long ago its last message came */
  silentForMs(): number {
    return performance.now() - this.#heardAt;
  }

  /** Sends a command. Rejects with the server's error, or FAILED when the server dies first. */
  request<Op extends keyof Commands>(
    command: Commands[Op]['command'] & { readonly op: Op },
    { progress, signal, limitMs }: CommandOptions = {},
  ): Promise<CommandResult<Op>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      if (this.#exited) return reject(new ServerDeath('it is not running'));
      const timer =
        limitMs === undefined ? undefined : setTimeout(() => this.#fail(id, late(command, limitMs)), limitMs);
      const settle = (act: () => void): void => {
        clearTimeout(timer);
        act();
      };
      this.#pending.set(id, {
        resolve: (result) => settle(() => resolve(result as CommandResult<Op>)),
        reject: (error) => settle(() => reject(error)),
        progress,
      });
      signal?.addEventListener('abort', () => this.#post(this.#nextId++, { op: 'cancel', target: id }));
      this.#post(id, command as Command);
    });
  }

  /** Sends SIGKILL, and waits until the process is reaped. */
  async kill(): Promise<void> {
    if (!this.#exited) this.#child.kill('SIGKILL');
    await this.#exit;
  }

  #post(id: number, command: Command): void {
    this.#outbox.post(id, command);
  }

  #send(envelope: Envelope): void {
    // a failed send means that the child is gone; its exit event rejects what is pending
    this.#child.send(envelope, () => {});
  }

  #fail(id: number, error: Error): void {
    this.#outbox.drop(id);
    this.#pending.get(id)?.reject(error);
    this.#pending.delete(id);
  }

  #receive(message: ServerMessage): void {
    this.#heardAt = performance.now();
    switch (message.kind) {
      case 'loaded':
        this.#version = message.version ?? null;
        return this.#becameLoaded?.();
      case 'unable':
        this.#wasUnable = FusetapError.from(message.error);
        return this.#becameLoaded?.();
      case 'forgotten':
        return this.#events?.forgotten(message.nodeId);
      case 'memory-wanted':
        // tells the server that it was heard; otherwise the server soon looks at the limit itself
        this.request<'ping'>({ op: 'ping' }).catch(() => {});
        return this.#events?.memoryWanted(message.nodeId);
      // a message may be read after the end of its sender, and the next server may have been told already
      case 'keep':
        return this.#exited ? undefined : this.#keep(message.number, message);
      case 'connection':
        return this.#exited ? undefined : this.#events?.connection(message.keptId, message.state);
      case 'gone':
        return this.#events?.gone();
      case 'progress':
        return this.#pending.get(message.id)?.progress?.(message.doneBytes, message.totalBytes);
      case 'done':
        this.#pending.get(message.id)?.resolve(message.result);
        break;
      case 'failed':
        return this.#fail(message.id, FusetapError.from(message.error));
    }
    this.#pending.delete(message.id);
  }

  #keep(number: number, { keptId, node, facts }: KeptNode): void {
    const answer = (error?: PlainError): void => {
      this.request<'kept'>({ op: 'kept', number, ...defined({ error }) }).catch(() => {});
    };
    try {
      this.#events?.keep({ keptId, node, facts }, this.#outbox.takeKept(number));
      answer();
    } catch (error) {
      console.error('what a driver wants to keep:', error);
      answer(toFusetapError(error, 'the keeper cannot keep it').toJSON());
    }
  }

  #failPending(how: string): void {
    for (const { reject } of this.#pending.values()) {
      reject(new ServerDeath(how));
    }
    this.#pending.clear();
  }
}

const OWN_PROGRAM = fileURLToPath(new URL('../../server/main.cjs', import.meta.url));

/** @param passing the server's end of the socket over which descriptors are sent */
function spawnServer(program: string, start: ServerStart, passing: number): ChildProcess {
  const alive = start.aliveFd === null ? [] : [start.aliveFd];
  const passed = [start.ledgerFd, start.lockFd, start.statsFd, passing, ...start.deviceFds, ...alive];
  const told: ServerStart = {
    ...start,
    ledgerFd: FIRST_PASSED_FD,
    lockFd: FIRST_PASSED_FD + 1,
    statsFd: FIRST_PASSED_FD + 2,
    passingFd: FIRST_PASSED_FD + 3,
    deviceFds: start.deviceFds.map((_, i) => FIRST_PASSED_FD + 4 + i),
    aliveFd: alive.length === 0 ? null : FIRST_PASSED_FD + passed.length - 1,
  };
  const stdio: StdioOptions = ['ignore', 'inherit', 'inherit', 'ipc', ...passed];
  const env = serverEnvironment(process.env);
  return spawn(process.execPath, [...BUS_NODE_OPTIONS, program, JSON.stringify(told)], { stdio, env });
}

/**
 * Starts the servers of a bus. After a death by SIGBUS, the next ones map no files.
 * @param first a server that was started already: the first launch takes it, dead or alive
 */
export function serverLauncher(
  start: Omit<ServerStart, 'mapsFiles'>,
  news: ServerNews,
  first: ServerProcess | null = null,
): (life: ServerLife, program: string | null) => ServerProcess {
  let mapsFiles = true;
  let waiting = first;
  const spares = new SpareFds();
  return (life, program) => {
    const died = (how: string): void => {
      // a mapped image shrank at the moment of a write: see fuse/thread/mapped-write.ts
      if (how === 'signal SIGBUS') mapsFiles = false;
      life.died(how);
    };
    const events = { ...news, ...life, died };
    if (waiting !== null) {
      const server = waiting;
      waiting = null;
      server.listen(events);
      return server;
    }
    return spares.lend(() => new ServerProcess({ ...start, mapsFiles }, events, program));
  };
}

function late({ op }: { readonly op: string }, limitMs: number): FusetapError {
  return new FusetapError('FAILED', `${op}: no answer from the server within ${limitMs / 1000} s`, {
    errno: E.ETIMEDOUT,
  });
}

class ServerDeath extends FusetapError {
  constructor(how: string) {
    super('FAILED', `the server died (${how})`, { hint: 'see the log of the bus' });
  }
}

/** Whether a command failed because the server died before it answered. */
export function isServerDeath(error: unknown): boolean {
  return error instanceof ServerDeath;
}
