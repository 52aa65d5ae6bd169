/**
 * Proves that a vbd works: reads a byte of it, through the kernel and the server, in a process that is neither keeper
 * nor server (a keeper that reads from its own mount could wait for itself for ever).
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { FusetapError } from '../../drivers/errors.js';
import { PROBE_FLAGS } from '../../system/own-probe.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { LogRecord } from '../runtime/log-line.js';

const LIMIT_MS = 10_000;

/** Reads the first byte. @throws FusetapError FAILED, also if no answer comes within 10 s */
export async function proveReadable(path: string, limitMs = LIMIT_MS): Promise<void> {
  const failure = (why: string, cause?: unknown): FusetapError =>
    new FusetapError('FAILED', `the attached file cannot be read: ${path}: ${why}`, { operation: 'read', path, cause });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(failure(`no answer within ${limitMs / 1000} s`)), limitMs);
  });
  const read = readFirstByte(path).catch((error: NodeJS.ErrnoException) => {
    throw failure(error.code ?? error.message, error);
  });
  try {
    const count = await Promise.race([read, late]);
    if (count !== 1) throw failure('it is empty');
  } finally {
    clearTimeout(timer);
  }
}

async function readFirstByte(path: string): Promise<number> {
  const file = await open(path, constants.O_RDONLY | PROBE_FLAGS);
  try {
    return (await file.read(Buffer.alloc(1), 0, 1, 0)).bytesRead;
  } finally {
    await file.close();
  }
}

/**
 * Adds what a driver said to the error of an attach: the program that read the vbd got only an errno. Call it before the vbd is detached: the log may go with the bus.
 * @returns the error with the last message of the vbd's driver since its attach; the same error if there is none
 */
export async function withDriverWords(place: BusPlace, vdev: string, error: unknown): Promise<unknown> {
  if (!(error instanceof FusetapError)) return error;
  const words = await lastWordsIn(place, vdev);
  return words === null ? error : new FusetapError(error.code, `${error.message}: ${words}`, error);
}

async function lastWordsIn(place: BusPlace, vdev: string): Promise<string | null> {
  let records: LogRecord[];
  try {
    const { readLog } = await import('../log/read-log.js');
    records = readLog(place).lines.map(({ record }) => record);
  } catch {
    return null;
  }
  const attached = records.findLastIndex((record) => record.event === 'attached' && record.vdev === vdev);
  for (const record of records.slice(attached + 1).reverse()) {
    if (record.event === 'driver-error' && record.vdev === vdev) return record.message;
    if (record.event === 'server-died' && record.vdev?.split(' ').includes(vdev)) return record.how;
  }
  return null;
}
