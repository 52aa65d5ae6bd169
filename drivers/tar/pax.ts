/**
 * The records of a pax header, which replace what the header of the next member says:
 *
 *      19 path=disk.vmdk\n      the first number counts all bytes of the record
 */
import { broken } from '../formats/faults.js';

/** What is used of the records. */
export interface PaxRecords {
  readonly path?: string;
  readonly size?: number;
  /** the member has only the data between its holes */
  readonly isSparse?: boolean;
}

/** @throws FusetapError FAILED for records that break the rules */
export function parsePax(bytes: Buffer): PaxRecords {
  let records: PaxRecords = {};
  // NULs may follow the last record
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const space = bytes.indexOf(0x20, at);
    const text = space < 0 || space - at > 8 ? '' : bytes.toString('latin1', at, space);
    const end = at + Number(text);
    if (!/^\d+$/.test(text) || end <= space + 1 || end > bytes.length || bytes[end - 1] !== 0x0a) throw invalid();
    records = { ...records, ...parseRecord(bytes.toString('utf8', space + 1, end - 1)) };
    at = end;
  }
  return records;
}

function parseRecord(record: string): PaxRecords {
  const equals = record.indexOf('=');
  if (equals < 0) throw invalid();
  const [key, value] = [record.slice(0, equals), record.slice(equals + 1)];
  // the name that a sparse member has after it was unpacked
  if (key === 'GNU.sparse.name') return { path: value, isSparse: true };
  if (key.startsWith('GNU.sparse.')) return { isSparse: true };
  if (key === 'path') return { path: value };
  if (key !== 'size') return {};
  const size = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw invalid();
  return { size };
}

function invalid(): Error {
  return broken('tar archive', 'a pax header in it breaks the rules');
}
