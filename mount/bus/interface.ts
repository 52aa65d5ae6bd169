/**
 * The control interface of a bus: what goes over control.sock, as types. docs/architecture.md lists the routes.
 *
 * It takes parts (driver, image, vdev, mode, options), never spec strings. The keys of VbdInfo and BusInfo are also
 * what `--json` prints: keys may be added, never changed.
 */
import type { PlainError } from '../../drivers/errors.js';

/** MAJOR.MINOR. Another MAJOR is refused; a MINOR only adds. */
export const INTERFACE_VERSION = '1.0';

export type Mode = 'r' | 'w' | 'w!';
export type BusState = 'running' | 'paused' | 'restarting' | 'orphaned' | 'failed';
export type TransportName = 'kernel' | 'fuse-native';

export interface PartitionInfo {
  vdev: string;
  path: string;
  offset: number;
  size: number;
  type: string;
}

/** A vbd. A key without a value is null; sizes are bytes; paths absolute. */
export interface VbdInfo {
  bus: string;
  vdev: string;
  slot: number;
  path: string;
  driver: string;
  image: string | null;
  mode: Mode;
  size: number;
  state: BusState;
  /** open handles, as far as known */
  opens: number;
  transport: TransportName;
  passthrough: boolean;
  /** name of the shared memory, ram only */
  share: string | null;
  partitions: PartitionInfo[] | null;
  keeperPid: number | null;
  serverPid: number | null;
  /** how often the server was replaced while this vbd was attached */
  restarts: number;
  /** the image was changed by somebody else while attached */
  changedOutside: boolean;
}

export interface BusInfo {
  bus: string;
  /** the mount */
  path: string;
  transport: TransportName;
  keeperPid: number | null;
  serverPid: number | null;
  restarts: number;
  state: BusState;
  interface: string;
  vbds: VbdInfo[];
}

/** POST /vbds */
export interface AttachRequest {
  driver: string;
  /** absolute path */
  image: string | null;
  /** a vdev, or null for the first free xvd* */
  vdev: string | null;
  mode: Mode;
  /** driver options by name */
  options: Record<string, string>;
}

/** Answer of DELETE /vbds/VDEV and POST /stop: what went. */
export interface DetachResult {
  vbds: DetachedVbd[];
  /** the bus ends now: its processes and its mount are going away */
  ended: boolean;
}

/** A vbd that is gone; `error` where its last flush failed, so that acknowledged writes may be lost. */
export type DetachedVbd = VbdInfo & { error?: PlainError };

/** GET /version */
export interface VersionInfo {
  interface: string;
  fusetap: string;
}

/** The body of every answer that is not 2xx. */
export interface ErrorAnswer {
  error: PlainError;
}
