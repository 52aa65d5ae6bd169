/** What Node does not tell of a socket, or does not set. */
import type { Socket } from 'node:net';
import { setSocketOption } from '../../system/libc.js';

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** beyond the limit of the system; only root */
const SO_SNDBUFFORCE = 32;
/** the kernel doubles it: a reply of 1 MiB is sent at once */
const SENT_BYTES = 512 << 10;

/** The descriptor of a socket of the system, which does not wait; null if it is closed. */
export function descriptorOf(socket: Socket): number | null {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : null;
}

/** Makes room for large replies in a unix socket. TCP finds its own size. */
export function enlargeUnixSocket(socket: Socket): void {
  const fd = descriptorOf(socket);
  if (fd === null || socket.remoteAddress !== undefined) return;
  for (const name of [SO_SNDBUFFORCE, SO_SNDBUF]) {
    try {
      return setSocketOption(fd, { level: SOL_SOCKET, name, value: SENT_BYTES });
    } catch {
      // it is only slower
    }
  }
}
