/** Where parts of a disk are kept, as the tables of its image tell. */

/** A part of a disk, kept in one way. */
export interface Part {
  /** in the disk */
  readonly offset: number;
  readonly length: number;
  /**
   * `none`: the image does not have it: it is in the backing file, or zeros; `encoded`: compressed, for example; `memory`: the
   * driver has the bytes in memory, and those of the file are old
   */
  readonly kind: 'none' | 'zeros' | 'data' | 'encoded' | 'memory';
  /** of `data` and `memory`, and of `zeros` with hasPlace: the first byte in the image or its data file */
  readonly place: number;
  /** the image has a place for it, also if it reads as zeros */
  readonly hasPlace: boolean;
  /** `data`: its bytes can be written in place, and no table changes */
  readonly isOwn: boolean;
}

/** Looks up parts. They are in order, and each goes on where the one before ends. */
export interface Finder<P extends Part> {
  /** @throws FusetapError FAILED if a table for the range is damaged; errors of the image */
  find(offset: number, length: number): Promise<P[]>;
  /** As find, for the tables that are in memory; the other parts of the range, and damaged ones, are left out. */
  peek(offset: number, length: number): P[];
}

/** Adds a part: to the last one, if it goes on there. */
export function addPart<P extends Part>(parts: P[], part: P): void {
  const last = parts.at(-1);
  const goesOn =
    last !== undefined &&
    last.offset + last.length === part.offset &&
    last.kind === part.kind &&
    last.isOwn === part.isOwn &&
    last.hasPlace === part.hasPlace &&
    part.kind !== 'encoded' &&
    (!part.hasPlace || last.place + last.length === part.place);
  if (goesOn) parts[parts.length - 1] = { ...last, length: last.length + part.length };
  else parts.push(part);
}
