/** What Node does not tell of a socket, or does not set. */
import type { Socket } from 'node:net';
import { setSocketOption } from '../../system/libc.js';

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** beyond the limit of the system; only root */
const SO_SNDBUFFORCE = 32;

/** The descriptor of a socket of the system, which does not wait; null if it is closed. */
export function descriptorOf(socket: Socket): number | null {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : null;
}

/** Makes room for what is sent on a unix socket: the kernel takes twice so much at once. TCP finds its own size. */
export function enlargeUnixSocket(socket: Socket, sentBytes: number): void {
  const fd = descriptorOf(socket);
  if (fd === null || socket.remoteAddress !== undefined) return;
  for (const name of [SO_SNDBUFFORCE, SO_SNDBUF]) {
    try {
      return setSocketOption(fd, { level: SOL_SOCKET, name, value: sentBytes });
    } catch {
      // it is only slower
    }
  }
}
