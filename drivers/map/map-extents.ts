/** A disk range by range, as `qemu-img map --output=json` describes it: what each range is, and in which file. */
import type { Disk, MapFile, Place } from '../driver.js';

/** The keys are those of qemu-img. */
export interface MapExtent {
  /** bytes, as all numbers but `depth` */
  readonly start: number;
  readonly length: number;
  /** how many disks down it is: 0 in the image itself, 1 in its backing file or base … */
  readonly depth: number;
  /** false: no image of the chain has it, so it reads as zeros */
  readonly present: boolean;
  /** it reads as zeros */
  readonly zero: boolean;
  /** an image has it as data; with `zero` too, in a hole of its file */
  readonly data: boolean;
  readonly compressed: boolean;
  /** its first byte in `filename`; null if its bytes are not plain in a file */
  readonly offset: number | null;
  readonly filename: string | null;
}

/** An extent whose file is known by its descriptor. */
export interface FileExtent extends Omit<MapExtent, 'filename'> {
  readonly fd: number | null;
}

/** The first extents of a range. */
export interface ToldExtents<Told> {
  readonly extents: Told[];
  /** where to go on; null: that was all */
  readonly next: number | null;
}

/** how many extents are told at a time */
const MOST_TOLD = 1024;
/** how often a disk is asked for them: it may tell little at a time */
const MOST_ASKED = 256;

/** @param length the range must be inside the disk */
export async function tellExtents(
  { places }: Pick<Disk, 'places'>,
  offset: number,
  length: number,
): Promise<ToldExtents<FileExtent>> {
  const end = offset + length;
  const extents: FileExtent[] = [];
  let at = offset;
  for (let asked = 0; at < end && asked < MOST_ASKED && extents.length < MOST_TOLD; asked++) {
    for (const place of await places.locate(at, end - at, { holes: true })) {
      append(extents, extentOf(place, places.files), 'fd');
      at = place.offset + place.length;
    }
  }
  return { extents, next: at < end ? at : null };
}

function extentOf({ offset: start, length, state, detail, depth, file, place }: Place, files: readonly MapFile[]) {
  const zero = state === 'zeros';
  const holder = file === null ? undefined : files[file];
  // memory has no name, and is no place that anybody could look at
  const isInFile = holder !== undefined && holder.kind !== 'memory';
  return {
    ...{ start, length, depth, present: detail !== 'absent', zero, data: !zero || detail === 'allocated' },
    compressed: detail === 'compressed',
    offset: isInFile ? place + (holder.delta ?? 0) : null,
    fd: isInFile ? holder.fd : null,
  };
}

type AnyExtent = Omit<MapExtent, 'filename'>;

/** Adds an extent, to the last one if that goes on. @param file the key of its file */
function append<Told extends AnyExtent>(extents: Told[], extent: Told, file: keyof Told): void {
  const last = extents.at(-1);
  if (last !== undefined && goesOn(last, extent) && last[file] === extent[file]) {
    extents[extents.length - 1] = { ...last, length: last.length + extent.length };
  } else extents.push(extent);
}

function goesOn(last: AnyExtent, { start, offset, ...facts }: AnyExtent): boolean {
  const isNext = last.offset === null ? offset === null : last.offset + last.length === offset;
  const isSame = (['depth', 'present', 'zero', 'data', 'compressed'] as const).every((key) => last[key] === facts[key]);
  return isNext && isSame && last.start + last.length === start;
}

/** All extents, asked for part by part. Those that go on in the next part are joined. */
export async function* allExtents(
  ask: (offset: number) => Promise<ToldExtents<MapExtent>>,
): AsyncGenerator<MapExtent, void> {
  let last: MapExtent[] = [];
  for (let offset: number | null = 0; offset !== null; ) {
    const { extents, next }: ToldExtents<MapExtent> = await ask(offset);
    if (next !== null && next <= offset) throw new RangeError(`extents from ${offset} on are followed by ${next}`);
    for (const extent of extents) {
      append(last, extent, 'filename');
      if (last.length === 1) continue;
      yield last[0] as MapExtent;
      last = last.slice(1);
    }
    offset = next;
  }
  yield* last;
}
