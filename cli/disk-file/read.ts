/**
 * Reads the disks of a file: a domain's configuration (xm's or xl's), lines as `config` prints them, or JSON. All disks
 * are parsed before the first is attached.
 */
import { readFileSync } from 'node:fs';
import { defined } from '../../drivers/defined.js';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import { asSnapshot } from '../../mount/client/disk-wish.js';
import { type AttachWords, attachRequest } from '../attach-request.js';
import { lineAt, listDisks, parseSpec, type ListedDisk as SpecAt } from '../disk-spec/index.js';
import { at, type ListedDisk } from '../listed-disk.js';
import { requestOfJson } from './json.js';

/** The options for all disks of a file. */
export type SharedWords = Pick<
  AttachWords,
  'passthrough' | 'transport' | 'partitions' | 'raw' | 'snapshot' | 'backing'
>;

/**
 * @param path `-` is stdin
 * @throws FusetapError with the file and the line or entry: USAGE, NOT_FOUND, DENIED
 */
export function readDiskFile(path: string, shared: SharedWords): ListedDisk[] {
  const file = path === '-' ? 'stdin' : path;
  const text = readText(path === '-' ? 0 : path, file);
  const requests = /^\s*[[{]/.test(text) ? ofJson(file, text, shared) : ofText(file, text, shared);
  if (requests.length > 0) return requests;
  throw new FusetapError('USAGE', `no disk in ${file}`, { hint: "write disk = [ 'aio:/img/a.img,xvda,w' ], or JSON" });
}

function readText(from: string | number, file: string): string {
  try {
    return readFileSync(from, 'utf8');
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    throw new FusetapError(codeOfErrno(Math.abs(errno ?? 0)), `cannot read ${file}: ${code}`, { path: file });
  }
}

function ofText(file: string, text: string, shared: SharedWords): ListedDisk[] {
  const inList = at(file, () => listDisks(text));
  const disks = inList.length > 0 ? inList : diskLines(text);
  return disks.map((disk) => {
    const where = `${file}:${lineAt(text, disk.offset)}`;
    return { where, ...at(where, () => attachRequest([disk.text], shared)) };
  });
}

/** The lines of a file that has one SPEC per line, as `config` prints them; none if its first line is no such SPEC. */
function diskLines(text: string): SpecAt[] {
  const lines = [...text.matchAll(/^(?!\s*#)(.*\S).*$/gm)].map((match) => ({
    text: match[1] ?? '',
    offset: match.index,
  }));
  return lines[0] !== undefined && hasPlace(lines[0].text) ? lines : [];
}

function hasPlace(line: string): boolean {
  try {
    return parseSpec(line).vdev !== null;
  } catch {
    return false;
  }
}

function ofJson(file: string, text: string, { snapshot, ...shared }: SharedWords): ListedDisk[] {
  const document = at(file, () => parseJson(text));
  // as `show --json` prints it
  const entries = (document as { vbds?: unknown } | null)?.vbds ?? document;
  if (!Array.isArray(entries)) {
    throw new FusetapError('USAGE', `${file}: not an array of disks`, {
      hint: 'write it as fusetap ls --json or fusetap config --json prints it',
    });
  }
  return entries.map((entry: unknown, index) => {
    const where = `${file}: entry ${index + 1}`;
    // a line, as `config --json` prints it
    if (typeof entry === 'string')
      return { where, ...at(where, () => attachRequest([entry], { ...shared, ...defined({ snapshot }) })) };
    const request = at(where, () => {
      const asked = requestOfJson(entry);
      return { ...(snapshot ? asSnapshot(asked) : asked), ...shared };
    });
    return { where, notes: [], request };
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FusetapError('USAGE', `not JSON: ${(error as Error).message}`, { cause: error });
  }
}
