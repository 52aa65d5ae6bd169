/** Where the bytes of a disk lie, for a driver above whose map names them: so threads read a chain as one disk. */
import type { Places, RawDisk, Segment } from '../driver.js';
import { cutSegments } from '../segments/segments.js';

/** The places of a disk; undefined if it cannot tell them. */
export function placesOf({ places, segments }: Pick<RawDisk, 'places' | 'segments'>): Places | undefined {
  return places ?? (segments && ofSegments(segments));
}

function ofSegments(segments: readonly Segment[]): Places {
  return {
    files: segments.map(({ fd, kind, durable, start, offset }) => {
      return { fd, kind, durable, readOnly: true, delta: start - offset };
    }),
    locate: async (offset, length) =>
      segments.flatMap((_, file) => {
        const [part] = cutSegments([segments[file] as Segment], offset, length);
        if (part === undefined) return [];
        const at = offset + part.offset;
        return [{ offset: at, length: part.size, state: 'data' as const, file, place: at }];
      }),
  };
}
