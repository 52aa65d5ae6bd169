/** How a vbd uses its image: `r` reads, `w` writes and is the only one, `w!` writes and says that others may, too. */
export type Mode = 'r' | 'w' | 'w!';
