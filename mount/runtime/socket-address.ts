/**
 * The address of a Unix socket, also if its path is too long for one: node cuts such a path short without a word and
 * then listens, or connects, somewhere else.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';

/** sun_path of struct sockaddr_un has 108 bytes with its NUL */
const LIMIT_BYTES = 107;

export interface SocketAddress {
  /** for `listen` and `connect` of this process */
  readonly path: string;
  /** to be called when the socket listens or is connected */
  close(): void;
}

/**
 * A path to the socket that fits: its own, else one through a descriptor of its directory.
 * @throws Error of the system where the directory cannot be opened
 */
export function socketAddress(directory: string, name: string): SocketAddress {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= LIMIT_BYTES) return { path, close: () => {} };
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${fd}/${name}`, close: () => closeSync(fd) };
}
