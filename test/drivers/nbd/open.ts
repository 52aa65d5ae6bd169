/** Opens disks of nbd in tests, without a bus, and makes connections without a server. */
import { Socket } from 'node:net';
import type { Test } from 'tap';
import type { ConnectionState, Host, Json, Kept, OpenContext, RawDisk } from '../../../drivers/driver.js';
import nbd from '../../../drivers/nbd/index.js';
import { socketPair } from '../../../system/libc.js';

export interface OpenWish {
  readonly readOnly?: boolean;
  readonly options?: Readonly<Record<string, string>>;
  readonly kept?: Kept | null;
  readonly host?: OpenContext['host'];
}

export function openNbd(
  uri: string,
  { readOnly = false, options = {}, kept = null, host }: OpenWish = {},
): Promise<RawDisk> {
  const none = { files: {}, disks: {}, memory: null, state: null, isRepaired: true };
  return nbd.open({ ...none, readOnly, options: { uri, ...options }, kept, host });
}

export interface RecordingHost extends Host {
  readonly states: ConnectionState[];
  readonly losses: string[];
  /** what was kept last; the descriptors are the driver's */
  readonly kept: { facts: Json; fds: readonly number[] }[];
}

/** A bus that only remembers what it is told. */
export function recordingHost(): RecordingHost {
  const [states, losses, kept]: [ConnectionState[], string[], RecordingHost['kept']] = [[], [], []];
  return {
    ...{ states, losses, kept },
    keep: async (facts, fds) => void kept.push({ facts, fds }),
    told: (state) => void states.push(state),
    lost: (error) => void losses.push(error.message),
  };
}

/** A connection that a dead server has left, and its other end. */
export function oldConnection(t: Test): { readonly ours: number; readonly far: Socket } {
  const [ours, theirs] = socketPair();
  const far = new Socket({ fd: theirs });
  far.on('error', () => {});
  t.teardown(() => far.destroy());
  return { ours, far };
}
