/**
 * split: a disk that was cut into pieces, `disk.img.001`, `disk.img.002` … The user names the first piece; the others
 * are asked for by their names until one does not exist. Threads serve the whole.
 */
import type { Driver, Need, NeedsContext } from '../driver.js';
import { FusetapError } from '../errors.js';
import { unsupported } from '../formats/faults.js';
import { numberedDisks, requireDisk } from '../image.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import { joinDisks } from '../segments/join-disks.js';
import { type Candidate, MOST_PIECES, namesAfter, type PieceNames } from './pieces.js';

/** how many names after the last piece are tried: a piece that is missing before others is then noticed */
const LOOK_AHEAD = 8;

const split = {
  name: 'split',
  roles: {
    file: { takes: 'disk', access: 'as-parent' },
    part: { takes: 'disk', access: 'as-parent', isOptional: true, many: true },
    /** files that show that the pieces are named in another way: a disk with one is refused */
    stray: { takes: 'disk', access: 'read', isOptional: true, many: true },
  },
  rawImage: true,
  check: (options) => takeOptions('split', options, []),
  async needs(context) {
    requireDisk(context, 'split');
    if (context.name === null) {
      throw new FusetapError('USAGE', 'split: the first piece has no name', {
        hint: 'name the pieces in JSON, with concat',
      });
    }
    const names = namesAfter(context.name);
    const pieces = piecesOf(names, context);
    const strays = straysOf(names, context);
    const asked = [...pieces, ...strays].filter(({ role }) => !isKnown(context, role));
    // ./ : a name with a colon would be a protocol
    return asked.map(({ role, name }): Need => ({ role, name: `./${name}`, driver: 'aio', isOptional: true }));
  },
  async open({ disks }) {
    const all = [requireDisk({ disks }, 'split'), ...numberedDisks({ disks }, 'part').map(({ disk }) => disk)];
    const size = all.reduce((sum, disk) => sum + disk.size, 0);
    if (!Number.isSafeInteger(size)) throw new FusetapError('USAGE', `split: the pieces have ${size} bytes, too many`);
    return joinDisks(all.map((disk) => ({ disk, start: 0, size: disk.size })));
  },
} satisfies Driver;

type Found = Pick<NeedsContext, 'disks' | 'absent'>;

function isKnown({ disks, absent }: Found, role: string): boolean {
  return disks[role] !== undefined || absent.includes(role);
}

/** The pieces that exist, and the next names. @throws FusetapError NOT_FOUND if one before others does not exist */
function piecesOf({ pieces, otherwise }: PieceNames, found: Found): Candidate[] {
  const isThere = ({ role }: Candidate): boolean => found.disks[role] !== undefined;
  const [longer] = otherwise?.pieces ?? [];
  if (otherwise === null || longer === undefined) return reached(pieces, found);
  const before = pieces.slice(0, otherwise.at);
  if (!isThere(longer)) return [...reached(pieces, found), ...(before.every(isThere) ? [longer] : [])];
  const plain = pieces.slice(otherwise.at).find(isThere);
  if (plain === undefined) return reached([...before, ...otherwise.pieces], found);
  throw new FusetapError('USAGE', `both ${quoted(longer.name)} and ${quoted(plain.name)} exist`, {
    hint: 'move the files away that are no pieces',
  });
}

/** The first of the pieces: those that exist, and LOOK_AHEAD more. */
function reached(pieces: readonly Candidate[], { disks, absent }: Found): Candidate[] {
  const last = pieces.findLastIndex(({ role }) => disks[role] !== undefined);
  if (last === pieces.length - 1)
    throw unsupported(`there are more than ${MOST_PIECES} pieces`, 'join pieces with cat');
  const gap = pieces.slice(0, Math.max(0, last)).find(({ role }) => absent.includes(role));
  if (gap !== undefined) {
    throw new FusetapError('NOT_FOUND', `the piece ${quoted(gap.name)} is missing, and later ones exist`, {
      hint: 'put it beside the others',
    });
  }
  return pieces.slice(0, last + 1 + LOOK_AHEAD);
}

/** The names to try that no piece may have. @throws FusetapError UNSUPPORTED if one exists */
function straysOf({ pieces, strays }: PieceNames, { disks }: Found): Candidate[] {
  const there = strays.find(({ role }) => disks[role] !== undefined);
  if (there !== undefined) {
    throw unsupported(`${quoted(there.name)} exists: ${there.why}`, 'name the pieces in JSON, with driver concat');
  }
  return strays.filter(({ after }) => after === 0 || disks[pieces[after - 1]?.role ?? ''] !== undefined);
}

export default split;
