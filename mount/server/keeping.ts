/**
 * Keeps facts and descriptors of drivers in the keeper, for the next server (Host in drivers/driver.ts).
 *
 *      driver ─ keep ─► message with descriptors (SCM_RIGHTS), then {keep} ─► keeper ─ {kept} ─► the promise of `keep`
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ConnectionState, Host, Json } from '../../drivers/driver.js';
import { FusetapError, type PlainError } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import type { Ledger } from '../ledger/ledger.js';
import { logEvent } from '../runtime/log.js';
import type { ServerMessage } from './commands.js';
import { passFds } from './passed-fds.js';

/** until the socket has room: the keeper reads it with each message */
const RETRY_MS = 10;
/** an older keeper that has failed to keep something does not answer */
const ANSWER_LIMIT_MS = 10_000;

/** A disk whose driver wants to keep something. */
export interface KeptDisk {
  readonly keptId: number;
  /** the path of the node in its tree */
  readonly node: string;
  readonly vdev: string;
  readonly ledgerIndex: number;
}

export class Keeping {
  readonly #send: (message: ServerMessage) => void;
  readonly #socket: number | undefined;
  readonly #ledger: Ledger;
  readonly #waiting = new Map<number, (error: Error | null) => void>();
  #nextNumber = 1;
  #hasKeeper = true;

  /** @param socket over which descriptors are sent */
  constructor(send: (message: ServerMessage) => void, socket: number | undefined, ledger: Ledger) {
    this.#send = send;
    this.#socket = socket;
    this.#ledger = ledger;
  }

  /** What a driver of a disk is given. */
  hostFor({ keptId, node, vdev, ledgerIndex }: KeptDisk): Host {
    return {
      keep: (facts, fds) => this.#keep({ keptId, node, facts }, fds),
      told: (state: ConnectionState) => this.#send({ kind: 'connection', keptId, state }),
      lost: (error) => {
        // first the ledger: this process may die
        this.#ledger.noteFlushError(ledgerIndex, E.EIO);
        logEvent({ event: 'writes-lost', vdev, reason: error.message });
      },
    };
  }

  async #keep(kept: { keptId: number; node: string; facts: Json }, fds: readonly number[]): Promise<void> {
    const socket = this.#socket;
    const number = this.#nextNumber++;
    if (socket === undefined) return;
    // without a keeper there is no next server
    while (this.#hasKeeper && !passFds(socket, number, fds)) await delay(RETRY_MS);
    if (!this.#hasKeeper) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => this.answered(number, late().toJSON()), ANSWER_LIMIT_MS);
      this.#waiting.set(number, (error) => {
        clearTimeout(timer);
        if (error === null) resolve();
        else reject(error);
      });
      this.#send({ kind: 'keep', number, ...kept });
    });
  }

  /** @param error why the keeper does not have what was sent under that number; undefined: it has it */
  answered(number: number, error?: PlainError): void {
    const settle = this.#waiting.get(number);
    this.#waiting.delete(number);
    settle?.(error === undefined ? null : FusetapError.from(error));
  }

  keeperDied(): void {
    this.#hasKeeper = false;
    for (const number of [...this.#waiting.keys()]) this.answered(number);
  }
}

function late(): FusetapError {
  return new FusetapError('FAILED', `the keeper has not kept it within ${ANSWER_LIMIT_MS / 1000} s`);
}
