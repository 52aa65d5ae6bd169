/**
 * The address of a Unix socket, also for a path that is too long: Node silently truncates such a path and then listens
 * or connects at another place.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';

/** sun_path of struct sockaddr_un has 108 bytes including the NUL */
const LIMIT_BYTES = 107;

export interface SocketAddress {
  /** for `listen` and `connect` of this process */
  readonly path: string;
  /** call it when the socket listens or is connected */
  close(): void;
}

/**
 * A path to the socket that is short enough: the path itself, else a path through a descriptor of its directory.
 * @throws a system error if the directory cannot be opened
 */
export function socketAddress(directory: string, name: string): SocketAddress {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= LIMIT_BYTES) return { path, close: () => {} };
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${fd}/${name}`, close: () => closeSync(fd) };
}
