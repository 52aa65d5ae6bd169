/**
 * Names of disks: what mount(8) and fstab call tags.
 *
 *      LABEL=root   UUID=3b1f0a52-…   PARTLABEL="EFI system partition"   PARTUUID=8e2f1c4a-01
 *
 * A name means what is attached: a vbd, or a partition that is shown as a file. The buses read the names from their disks.
 */
import { basename, dirname } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import type { FileNames } from '../../control/interface.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { encodeName, kindOfDirectory, linkName, NAME_KINDS, type NameKind } from '../../transport/by-name.js';
import { askEither } from '../ask.js';

/** a bus reads its disks for a second at most */
const LIMIT_MS = 5_000;

export { NAME_KINDS };

/** A name that a word asks for. */
export interface Tag {
  readonly kind: NameKind;
  /** as given */
  readonly word: string;
  readonly value: string;
}

/** The tag of a word; null if it is none. A file of such a name is given with its directory, as `./LABEL=x`. */
export function parseTag(word: string): Tag | null {
  const [, key = '', text = ''] = /^(LABEL|UUID|PARTLABEL|PARTUUID)=(.*)$/s.exec(word) ?? [];
  const kind = NAME_KINDS.find((each) => each.toUpperCase() === key);
  if (kind === undefined) return null;
  const [, inQuotes] = /^"(.*)"$/s.exec(text) ?? /^'(.*)'$/s.exec(text) ?? [];
  return { kind, word, value: inQuotes ?? text };
}

/** The name of a path in a directory of names, as `bus/0/by-label/root`; null if it is none. */
export function tagOfPath(path: string): (Tag & { readonly busPath: string }) | null {
  const directory = dirname(path);
  const kind = kindOfDirectory(basename(directory));
  return kind === undefined ? null : { kind, word: path, value: basename(path), busPath: dirname(directory) };
}

/**
 * Whether a file has the name. UUIDs are compared without regard to case, everything else exactly. Unsafe characters may
 * be written as udev does, `\x20`.
 */
export function hasName(names: FileNames, { kind, value }: Tag): boolean {
  const name = names[kind];
  if (name === null || value === '') return false;
  if (kind === 'uuid' || kind === 'partuuid') return name.toLowerCase() === value.toLowerCase();
  const encoded = (kind === 'label' ? names.labelEncoded : null) ?? encodeName(Buffer.from(name));
  return encodeName(Buffer.from(value)) === encoded || value === encoded || value === linkName(encoded);
}

/** What the files of a bus hold. @throws FusetapError if it does not tell, for example because it is older */
export async function askNames(place: BusPlace, timeoutMs = LIMIT_MS): Promise<FileNames[]> {
  const names: unknown = await askEither(place, 'GET /names', { timeoutMs });
  return Array.isArray(names) ? (names as FileNames[]) : [];
}

/** Files with the same name; the one with the lowest slot has the link of its bus. */
export interface Duplicate {
  readonly kind: NameKind;
  readonly name: string;
  readonly files: readonly FileNames[];
}

/** The names that several files have. */
export function findDuplicates(all: readonly FileNames[]): Duplicate[] {
  return NAME_KINDS.flatMap((kind) => {
    const byName = new Map<string, FileNames[]>();
    for (const file of all) {
      const name = file[kind];
      if (name === null) continue;
      const same = byName.get(name);
      if (same === undefined) byName.set(name, [file]);
      else same.push(file);
    }
    const several = [...byName].filter(([, files]) => files.length > 1);
    return several.map(([name, files]) => ({ kind, name, files: files.sort((a, b) => a.slot - b.slot) }));
  });
}

/** As `LABEL=root`. */
export function tagText(kind: NameKind, name: string): string {
  return `${kind.toUpperCase()}=${/[\s'"]/.test(name) ? quoted(name) : name}`;
}

export function severalHave({ word }: Tag, files: readonly FileNames[]): FusetapError {
  const list = files.map(({ vdev, bus }) => `${vdev} of bus ${bus}`).join(', ');
  return new FusetapError('USAGE', `several disks have ${quoted(word)}: ${list}`, {
    hint: 'give the vdev, and its bus with --bus; or give one of them another label or UUID',
  });
}

/** The disks that could not be read now, in words; null if there are none. */
export function sayUnread(files: readonly FileNames[]): string | null {
  const unread = files.filter(({ known }) => known === false).map(({ vdev, bus }) => `${vdev} of bus ${bus}`);
  const [first] = unread;
  if (first === undefined) return null;
  const others = unread.length === 1 ? '' : ` and ${unread.length - 1} more`;
  return `${first}${others} cannot be read now`;
}

/** One disk has the name, but others could not be asked. @param gap which, and why */
export function perhapsSeveralHave(
  { word }: Tag,
  { vdev, path }: { readonly vdev: string; readonly path: string },
  gap: string,
): FusetapError {
  return new FusetapError('BUSY', `${vdev} has ${quoted(word)}, but another disk may have it too: ${gap}`, {
    hint: `give the path instead: ${path}; or narrow the search with --bus`,
  });
}

/** @param gap which bus or disk could not be asked */
export function noneHas({ word }: Tag, where: string, gap: string | null): FusetapError {
  const why = gap === null ? '' : `; ${gap}`;
  return new FusetapError('NOT_FOUND', `nothing that is attached has ${quoted(word)} on ${where}${why}`, {
    hint: 'fusetap ls --fs lists the names; those of partitions exist with fusetap attach --partitions',
  });
}
