/**
 * The names of the pieces that split(1), 7-Zip and others make of one file. Only the name of the first piece is known,
 * and no directory can be listed, so each next name is guessed and asked for.
 *
 *      disk.img.001, disk.img.002 …      numbers from 000 or 001 on, of two or more digits
 *      xaa, xab … xaz, xba …             letters
 *      x00 … x89, x9000, x9001 …         numbers of split -d without -a: it makes room for more at 90
 */
import { FusetapError } from '../errors.js';
import { MOST_FILES } from '../graph.js';
import { quoted } from '../quote.js';

/** A name that a piece may have, or that a file has only if the pieces are named in a way that is not read here. */
export interface Candidate {
  /** `part1`, `part2` … in the order of the pieces; `stray0` … for a file that must not be there */
  readonly role: string;
  readonly name: string;
}

export interface PieceNames {
  /** the pieces after the first: MOST_PIECES of them */
  readonly pieces: readonly Candidate[];
  /** the pieces that follow `pieces[at - 1]` in place of `pieces[at]`, if that one does not exist */
  readonly otherwise: { readonly at: number; readonly pieces: readonly Candidate[] } | null;
  /** files that must not be there, and after how many pieces they matter */
  readonly strays: readonly (Candidate & { readonly after: number; readonly why: string })[];
}

/** of all names, one is a piece more than can be open */
export const MOST_PIECES = MOST_FILES;
/** the number of the role of the first of the pieces `otherwise` */
const OTHERWISE_ROLE = 1000;
const LETTERS = 'abcdefghijklmnopqrstuvwxyz';
const VMDK_EXTENT = /-[sf]\d{3}(?:\.vmdk)?$/i;
/** the digits are all those at the end: 100 is not a first piece */
const NUMBERED = /^(.*?)(?<!\d)(0+|0+1)$/s;
const LETTERED = /^(.*)aa$/s;

/** The names of the pieces after the first. @throws FusetapError USAGE if a first piece has no such name */
export function namesAfter(first: string): PieceNames {
  if (VMDK_EXTENT.test(first)) {
    throw new FusetapError('USAGE', `${quoted(first)} is an extent of a VMDK`, {
      hint: 'attach its descriptor: vmdk:IMAGE',
    });
  }
  const [, stem, digits = ''] = NUMBERED.exec(first) ?? [];
  if (stem !== undefined && digits.length >= 2) return numbered(stem, digits);
  const [, letters] = LETTERED.exec(first) ?? [];
  if (letters !== undefined) return lettered(letters);
  throw new FusetapError('USAGE', `${quoted(first)} is not the name of a first piece`, {
    hint: 'give the piece that ends in 001, 000, 00 or aa; or name all pieces in JSON, with driver concat',
  });
}

function numbered(stem: string, digits: string): PieceNames {
  const from = Number(digits);
  const width = digits.length;
  const nameOf = (number: number): string => `${stem}${String(number).padStart(width, '0')}`;
  const pieces = rolesFrom(1, (i) => nameOf(from + i));
  // hexadecimal numbers go on with 0a after 09
  const hexadecimal = { role: 'stray1', name: `${stem}${'a'.padStart(width, '0')}`, after: 9 - from };
  const strays = [{ ...hexadecimal, why: 'the pieces have hexadecimal numbers' }];
  if (from === 1) {
    const before = { role: 'stray0', name: nameOf(0), after: 0 };
    return {
      pieces,
      otherwise: null,
      strays: [...strays, { ...before, why: 'it comes before the piece that was named' }],
    };
  }
  if (width !== 2) return { pieces, otherwise: null, strays };
  const longer = rolesFrom(OTHERWISE_ROLE, (i) => `${stem}${9000 + i - 1}`).slice(0, MOST_PIECES - 89);
  return { pieces, otherwise: { at: 89, pieces: longer }, strays };
}

function lettered(stem: string): PieceNames {
  const letter = (i: number): string => LETTERS[i % LETTERS.length] as string;
  const pieces = rolesFrom(1, (i) => `${stem}${letter(Math.floor(i / LETTERS.length))}${letter(i)}`);
  return { pieces, otherwise: null, strays: [] };
}

function rolesFrom(number: number, nameOf: (i: number) => string): Candidate[] {
  return Array.from({ length: MOST_PIECES }, (_, i) => ({ role: `part${number + i}`, name: nameOf(i + 1) }));
}
