/**
 * Makes the supervisor of a bus's servers, for one mount. A bus that is mounted again after a failure gets another one.
 */
import type { TransportName } from '../control/interface.js';
import type { KernelMount } from '../fuse/mounting/device.js';
import { requestResend } from '../fuse/mounting/device.js';
import { readMilliseconds } from '../runtime/environment.js';
import { takeLastWords } from '../runtime/last-words.js';
import { logEvent } from '../runtime/log.js';
import type { PassedToServers } from './beginning.js';
import { Replay } from './replay.js';
import { DEFAULT_SILENCE_LIMIT_MS } from './supervision/heartbeat.js';
import { type ServerNews, type ServerProcess, serverLauncher } from './supervision/server-process.js';
import { DEFAULT_START_LIMIT_MS, Supervisor } from './supervision/supervisor.js';
import { type BusParts, deviceOf } from './vbds/bus-parts.js';

export interface SupervisedBus {
  /** a function, because the bus is made after its supervisor */
  readonly bus: () => BusParts;
  readonly passed: PassedToServers;
  readonly mount: KernelMount;
  /** the server that was started with the mount */
  readonly first: ServerProcess | null;
  memoryWanted(nodeId: number): void;
  connection: ServerNews['connection'];
  gaveUp(why: string): void;
}

/** @param restarts how many servers were replaced on earlier mounts */
export function supervise(
  { bus, passed, mount, first, memoryWanted, connection, gaveUp }: SupervisedBus,
  restarts = 0,
): Supervisor {
  const { deviceFds, aliveFd } = mount;
  const silenceLimitMs = readMilliseconds('FUSETAP_SILENCE_LIMIT_MS', DEFAULT_SILENCE_LIMIT_MS);
  const replay = new Replay(silenceLimitMs);
  const keep: ServerNews['keep'] = (kept, fds) => bus().kept.keep(kept, fds);
  const news = { forgotten: (nodeId: number) => bus().forgets.tell(nodeId), memoryWanted, connection, keep };
  const supervised = {
    launch: serverLauncher({ ...passed, deviceFds, aliveFd }, news, first),
    replay: (next, choice) => replay.to(next, bus(), choice),
    resend: () => requestResend(deviceOf(bus())),
    cannotReplace: reasonNotToReplace(passed.transport, mount),
    answered: () => bus().ledger.answered(),
    takeInFlight: () => bus().ledger.takeInFlight(),
    work: () => bus().ledger.work(),
    inPlace: (server) => {
      bus().kept.forgetStates();
      replay.inPlace(server, bus());
      bus().record();
    },
    gaveUp,
    log: logEvent,
    lastWords: (pid) => takeLastWords(passed.place.stateDir, pid),
    silenceLimitMs,
    startLimitMs: readMilliseconds('FUSETAP_START_LIMIT_MS', DEFAULT_START_LIMIT_MS),
  } satisfies ConstructorParameters<typeof Supervisor>[0];
  return new Supervisor(supervised, restarts);
}

function reasonNotToReplace(transport: TransportName, { negotiated }: KernelMount): string | null {
  if (transport === 'fuse-native') return 'with transport fuse-native the mount ends with the server';
  return negotiated.canResend ? null : 'this kernel cannot resend requests (Linux 6.9 can)';
}
