/**
 * The supervisor of a bus's servers, for one mount: where a bus that was given up is mounted anew, it gets another one.
 */
import type { KernelMount } from '../fuse/device.js';
import { requestResend } from '../fuse/device.js';
import { type BusParts, deviceOf } from './bus-parts.js';
import { readMilliseconds } from './environment.js';
import type { TransportName } from './interface.js';
import type { ServerStart } from './ipc.js';
import { logEvent } from './log.js';
import { Replay } from './replay.js';
import { serverLauncher } from './server-process.js';
import { DEFAULT_SILENCE_LIMIT_MS, DEFAULT_START_LIMIT_MS, Supervisor } from './supervisor.js';

/** What servers are told whatever the mount is. */
export type PassedToServers = Omit<ServerStart, 'mapsFiles' | 'deviceFds' | 'aliveFd' | 'passingFd'>;

export interface SupervisedBus {
  /** asked for with each use: it is made with its supervisor */
  readonly bus: () => BusParts;
  readonly passed: PassedToServers;
  readonly mount: KernelMount;
  memoryWanted(nodeId: number): void;
  gaveUp(why: string): void;
}

/** @param restarts how many servers were replaced on earlier mounts */
export function supervise({ bus, passed, mount, memoryWanted, gaveUp }: SupervisedBus, restarts = 0): Supervisor {
  const { deviceFds, aliveFd } = mount;
  const silenceLimitMs = readMilliseconds('FUSETAP_SILENCE_LIMIT_MS', DEFAULT_SILENCE_LIMIT_MS);
  const replay = new Replay(silenceLimitMs);
  const supervised = {
    launch: serverLauncher({ ...passed, deviceFds, aliveFd }),
    replay: (next, choice) => replay.to(next, bus(), choice),
    resend: () => requestResend(deviceOf(bus())),
    cannotReplace: reasonNotToReplace(passed.transport, mount),
    answered: () => bus().ledger.answered(),
    takeInFlight: () => bus().ledger.takeInFlight(),
    work: () => bus().ledger.work(),
    forgotten: (nodeId) => bus().forgets.tell(nodeId),
    memoryWanted,
    inPlace: (server) => {
      replay.inPlace(server, bus());
      bus().record();
    },
    gaveUp,
    log: logEvent,
    silenceLimitMs,
    startLimitMs: readMilliseconds('FUSETAP_START_LIMIT_MS', DEFAULT_START_LIMIT_MS),
  } satisfies ConstructorParameters<typeof Supervisor>[0];
  return new Supervisor(supervised, restarts);
}

function reasonNotToReplace(transport: TransportName, { negotiated }: KernelMount): string | null {
  if (transport === 'fuse-native') return 'with transport fuse-native the mount goes with it';
  return negotiated.canResend ? null : 'this kernel cannot send its requests again (Linux 6.9 can)';
}
