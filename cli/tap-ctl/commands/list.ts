/** `tap-ctl list`: prints a table on a terminal, `name=value` pairs in a pipe. */
import { escapeControls } from '../../../drivers/quote.js';
import { listTaps, type TapEntry } from '../../../mount/tap/index.js';
import { print } from '../../output.js';
import { findNumber, type Given, NAME_LETTERS, ownRuntimeDir, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'list [-p pid] [-m minor] [-t type] [-f file]',
  summary:
    'Lists tapdisks and minors: on a terminal as a table of pid, minor, state, type and path, in a pipe as pairs name=value.',
  letters: {
    ...NAME_LETTERS,
    t: { value: 'type', meaning: 'only vbds of this driver' },
    f: { value: 'file', meaning: 'only vbds of this image' },
  },
  async run(given) {
    const isWanted = filterOf(given);
    const line = process.stdout.isTTY ? rowOf : pairsOf;
    for (const entry of (await listTaps(ownRuntimeDir())).filter(isWanted)) print(line(entry));
  },
};

function filterOf(given: Given): (entry: TapEntry) => boolean {
  const [pid, minor] = [findNumber(given, 'p'), findNumber(given, 'm')];
  return (entry) =>
    (pid === null || entry.pid === pid) &&
    (minor === null || entry.minor === minor) &&
    (given.t === undefined || entry.type === given.t) &&
    (given.f === undefined || entry.path === given.f);
}

/** As `%#x` of printf: no prefix before a zero. */
function hex(state: number): string {
  return state === 0 ? '0' : `0x${state.toString(16)}`;
}

function rowOf({ pid, minor, state, type, path }: TapEntry): string {
  const cell = (value: number | string | null, width: number): string => String(value ?? '-').padStart(width);
  const fields = [cell(pid, 8), cell(minor, 4), cell(state === null ? null : hex(state), 4), cell(type, 10)];
  return `${fields.join(' ')} ${escapeControls(path ?? '-')}`;
}

function pairsOf({ pid, minor, state, type, path }: TapEntry): string {
  const pairs = [
    pid === null ? null : `pid=${pid}`,
    minor === null ? null : `minor=${minor}`,
    state === null ? null : `state=${hex(state)}`,
    type === null ? null : `args=${type}:${escapeControls(path ?? '')}`,
  ];
  return pairs.filter((pair) => pair !== null).join(' ');
}
