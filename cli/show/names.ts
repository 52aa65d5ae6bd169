/** `fusetap ls --fs`: what the vbds and partitions hold, with their names, like `lsblk -f`. */
import { type FusetapError, toFusetapError } from '../../drivers/errors.js';
import { aboveFile, type VbdAbove } from '../../mount/client/finding/above.js';
import { askNames, type Duplicate, findDuplicates, tagText } from '../../mount/client/finding/names.js';
import { resolveBus } from '../../mount/client/index.js';
import type { FileNames } from '../../mount/control/interface.js';
import { callersRuntimeDir } from '../options.js';
import { type Column, printTable } from '../output.js';

export const NAME_COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'VDEV' },
  { head: 'FSTYPE' },
  { head: 'LABEL' },
  { head: 'UUID' },
  { head: 'PARTLABEL' },
  { head: 'LOOP' },
  { head: 'MOUNTED' },
];

type Tables = Parameters<typeof aboveFile>[1];

/** A file with its names, and with what the kernel has above it. */
interface Row extends FileNames {
  readonly loops: readonly string[];
  readonly mounts: readonly string[];
  /** other files with the same name; empty: it is the only one */
  readonly duplicates: readonly OwnDuplicate[];
}

/** The other files with a name that a file has. */
interface OwnDuplicate {
  readonly name: string;
  /** the first of them */
  readonly paths: readonly string[];
  /** how many there are beside those; omitted: none */
  readonly more?: number;
}

/** with hundreds of copies of a disk, the list of each would have all others */
const MAX_PATHS = 10;

export interface NamesOfBuses {
  readonly files: readonly FileNames[];
  /** a bus may not answer, or be of an older version */
  readonly errors: readonly FusetapError[];
}

/** Asks the buses for the names of their disks. */
export async function namesOfBuses(buses: readonly string[], limitMs?: number): Promise<NamesOfBuses> {
  const errors: FusetapError[] = [];
  const asked = await Promise.all(
    buses.map(async (bus) => {
      try {
        return await askNames(await resolveBus(bus, callersRuntimeDir()), limitMs);
      } catch (error) {
        errors.push(toFusetapError(error, `bus ${bus} does not tell the names of its disks`));
        return [];
      }
    }),
  );
  return { files: asked.flat(), errors };
}

/** A row for each vbd and each partition. */
export function nameRows(vbds: readonly VbdAbove[], { files }: NamesOfBuses, tables: Tables): Row[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const duplicates = new Map<string, OwnDuplicate[]>();
  for (const duplicate of findDuplicates(files)) {
    for (const { path } of duplicate.files) {
      const own = duplicates.get(path) ?? [];
      own.push(withoutOwn(duplicate, path));
      duplicates.set(path, own);
    }
  }
  return vbds.flatMap((vbd) =>
    [vbd, ...(vbd.partitions ?? [])].map(({ vdev, slot, path }) => {
      const own = byPath.get(path) ?? { bus: vbd.bus, vdev, slot, path, ...NOTHING_KNOWN };
      return { ...own, ...aboveFile(path, tables), duplicates: duplicates.get(path) ?? [] };
    }),
  );
}

function withoutOwn({ kind, name, files }: Duplicate, path: string): OwnDuplicate {
  const firsts = files.slice(0, MAX_PATHS + 1).flatMap((file) => (file.path === path ? [] : file.path));
  const paths = firsts.slice(0, MAX_PATHS);
  const more = files.length - 1 - paths.length;
  return { name: tagText(kind, name), paths, ...(more > 0 && { more }) };
}

const NOTHING_KNOWN = {
  ...{ type: null, usage: null, label: null, labelEncoded: null, uuid: null, partlabel: null, partuuid: null },
};

export function printNames(rows: readonly Row[]): void {
  printTable(
    NAME_COLUMNS,
    rows.map(({ bus, vdev, type, label, uuid, partlabel, loops, mounts }) => {
      const names = [type, label, uuid, partlabel].map((value) => value ?? '-');
      return [bus, vdev, ...names, loops.join(' ') || '-', mounts.join(' ')];
    }),
  );
}

/** A remark for each name that several of the files have. */
export function remarksOnNames({ files }: NamesOfBuses): string[] {
  return findDuplicates(files).map(sayDuplicate);
}

function sayDuplicate({ kind, name, files }: Duplicate): string {
  const buses = new Set(files.map(({ bus }) => bus));
  const list = files.map(({ vdev, bus }) => (buses.size > 1 ? `${vdev} of bus ${bus}` : vdev));
  const link = buses.size > 1 ? '' : `; by-${kind} leads to ${list[0]}`;
  return `${tagText(kind, name)} is on ${list.slice(0, -1).join(', ')} and ${list.at(-1)}${link}`;
}

/** The lines of `show`: what a vbd and its partitions hold. */
export function nameLines(paths: readonly string[], names: NamesOfBuses): [name: string, value: string][] {
  const held = names.files.filter(({ path }) => paths.includes(path));
  const lines = held.flatMap(({ path, vdev, type, label, uuid, partlabel, partuuid }): [string, string][] => {
    const tags = Object.entries({ label, uuid, partlabel, partuuid }) as [Duplicate['kind'], string | null][];
    const words = tags.flatMap(([kind, name]) => (name === null ? [] : [tagText(kind, name)]));
    if (type === null && words.length === 0) return [];
    const text = [type ?? 'nothing known', ...words].join(', ');
    return [['holds', path === paths[0] ? text : `${vdev}: ${text}`]];
  });
  const duplicates = findDuplicates(names.files).filter(({ files }) => files.some(({ path }) => paths.includes(path)));
  return [...lines, ...duplicates.map((each): [string, string] => ['duplicate', sayDuplicate(each)])];
}
