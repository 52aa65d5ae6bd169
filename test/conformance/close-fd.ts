/** Closes a plain descriptor, such as one of memfdCreate. */
import { close } from 'node:fs';
import { promisify } from 'node:util';

export const closeFd: (fd: number) => Promise<void> = promisify(close);
