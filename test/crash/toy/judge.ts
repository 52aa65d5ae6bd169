/** The judge of the toy format: it knows the format, and not the driver. */
import type { Judge } from '../subject.js';
import { fileOf } from '../tape.js';
import { COUNTS_AT, DIRECTORY_AT, DIRTY, FIRST_UNIT, parseHeader, TABLE_ENTRIES, tablesOf, UNIT } from './format.js';

export const judgeToy: Judge = async (files, { wasKilled }) => {
  const bytes = fileOf(files, 'file').toBuffer();
  const { flags, size } = parseHeader(bytes);
  const faults: string[] = [];
  const names = new Map<number, string>();
  const note = (place: number, what: string): boolean => {
    const unit = place / UNIT;
    if (!Number.isInteger(unit) || unit < FIRST_UNIT || place + UNIT > bytes.length) {
      faults.push(`${what} is at ${place}, in a file of ${bytes.length} bytes`);
      return false;
    }
    const other = names.get(unit);
    if (other !== undefined) faults.push(`${what} is where ${other} is, at ${place}`);
    names.set(unit, what);
    return true;
  };
  const word = (at: number): number => Number(bytes.readBigUInt64LE(at));
  for (let table = 0; table < tablesOf(size); table++) {
    const place = word(DIRECTORY_AT + 8 * table);
    if (place === 0 || !note(place, `table ${table}`)) continue;
    for (let at = 0; at < TABLE_ENTRIES; at++) {
      const entry = word(place + 8 * at);
      const data = entry - (entry % 8);
      if (data !== 0) note(data, `unit ${table * TABLE_ENTRIES + at}`);
    }
  }
  for (let unit = FIRST_UNIT; unit * UNIT < bytes.length; unit++) {
    const count = bytes[COUNTS_AT + unit];
    const named = names.get(unit);
    if (named !== undefined && count !== 1) faults.push(`${named} has the count ${count}`);
    if (named === undefined && count !== 0 && !wasKilled) faults.push(`nothing uses the unit ${unit} of the file`);
  }
  if ((flags & DIRTY) !== 0 && !wasKilled) faults.push('it is marked as dirty');
  return faults;
};
