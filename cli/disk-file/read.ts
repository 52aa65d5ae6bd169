/**
 * Reads the disks of a file: a domain's configuration (xm's or xl's), or JSON. All disks are parsed before the first is
 * attached.
 */
import { readFileSync } from 'node:fs';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import { type AttachWords, attachRequest, type Wanted } from '../attach-request.js';
import { lineAt, listDisks } from '../disk-spec/index.js';
import { requestOfJson } from './json.js';

/** A disk and its position: `domain.cfg:3`, `disks.json: entry 2`. */
export interface ListedRequest extends Wanted {
  readonly where: string;
}

/** The options for all disks of a file. */
export type SharedWords = Pick<AttachWords, 'passthrough' | 'transport' | 'partitions' | 'raw'>;

/** @throws FusetapError with the file and the line or entry: USAGE, NOT_FOUND, DENIED */
export function readDiskFile(file: string, shared: SharedWords): ListedRequest[] {
  const text = readText(file);
  const requests = /^\s*[[{]/.test(text) ? ofJson(file, text, shared) : ofDomain(file, text, shared);
  if (requests.length > 0) return requests;
  throw new FusetapError('USAGE', `no disk in ${file}`, { hint: "write disk = [ 'aio:/img/a.img,xvda,w' ], or JSON" });
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    throw new FusetapError(codeOfErrno(Math.abs(errno ?? 0)), `cannot read ${file}: ${code}`, { path: file });
  }
}

function ofDomain(file: string, text: string, shared: SharedWords): ListedRequest[] {
  const disks = at(file, () => listDisks(text));
  return disks.map((disk) => {
    const where = `${file}:${lineAt(text, disk.offset)}`;
    return { where, ...at(where, () => attachRequest([disk.text], shared)) };
  });
}

function ofJson(file: string, text: string, shared: SharedWords): ListedRequest[] {
  const document = at(file, () => parseJson(text));
  // as `show --json` prints it
  const entries = (document as { vbds?: unknown } | null)?.vbds ?? document;
  if (!Array.isArray(entries)) {
    throw new FusetapError('USAGE', `${file}: not an array of disks`, {
      hint: 'write it as fusetap ls --json prints it',
    });
  }
  return entries.map((entry: unknown, index) => {
    const where = `${file}: entry ${index + 1}`;
    return { where, notes: [], request: { ...at(where, () => requestOfJson(entry)), ...shared } };
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FusetapError('USAGE', `not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** Runs `work`, and adds the position to its errors. */
function at<Result>(where: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw placed(where, error);
  }
}

/** An error of a disk, with the position of the disk in front; code and details stay. */
export function placed(where: string, error: unknown): unknown {
  if (!(error instanceof FusetapError)) return error;
  return new FusetapError(error.code, `${where}: ${error.message}`, { ...error.toJSON(), cause: error });
}
