export const MODES = ['r', 'w', 'w!'] as const;

/** How a vbd uses its image: `r` reads; `w` writes as the only writer; `w!` writes and allows other writers. */
export type Mode = (typeof MODES)[number];
