/** How a vbd uses its image: `r` reads; `w` writes as the only writer; `w!` writes and allows other writers. */
export type Mode = 'r' | 'w' | 'w!';

export const MODES: readonly Mode[] = ['r', 'w', 'w!'];

export function isMode(word: string): word is Mode {
  return MODES.some((mode) => mode === word);
}
