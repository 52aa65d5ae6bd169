/** Closes a bare descriptor, as memfdCreate gives. */
import { close } from 'node:fs';
import { promisify } from 'node:util';

export const closeFd: (fd: number) => Promise<void> = promisify(close);
