/** What a bus of an older version, which has no GET /counters, counts: the same, but without histograms and processes. */
import { FusetapError } from '../../../drivers/errors.js';
import type {
  BusCounters,
  BusInfo,
  KindCounters,
  KindStats,
  VbdCounters,
  VbdInfo,
  VbdStats,
} from '../../control/interface.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { askEither } from '../ask.js';

export function isOlder(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'NOT_FOUND' && /^no such request: /.test(error.message);
}

export async function countersOfOlder(
  place: BusPlace,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<BusCounters> {
  const [info, stats] = await Promise.all([
    askEither(place, 'GET /bus', options),
    askEither(place, 'GET /stats', options),
  ]);
  const { bus, path, state, keeperPid, serverPid } = info;
  return {
    ...{ bus, path, state, keeper: null, server: null, waiting: null },
    run: String(keeperPid ?? serverPid),
    monotonicMs: Number(process.hrtime.bigint() / 1000n) / 1000,
    restarts: state === 'orphaned' ? null : info.restarts,
    vbds: stats.flatMap((each) => countersOf(info, each)),
  };
}

function countersOf({ vbds }: BusInfo, { vdev, passthrough, ...kinds }: VbdStats): VbdCounters[] {
  const whole = vbds.find((vbd) => vbd.vdev === vdev);
  const above = whole ?? vbds.find(({ partitions }) => partitions?.some((partition) => partition.vdev === vdev));
  // it was attached between the two answers
  if (above === undefined) return [];
  const part = whole === undefined ? above.partitions?.find((partition) => partition.vdev === vdev) : undefined;
  const { slot, size, opens } = part ?? above;
  const { read, write, flush, discard } = kinds;
  return [
    {
      ...factsOf(above),
      ...{ vdev, passthrough, size, opens, id: slot, mode: part?.mode ?? above.mode },
      disk: part === undefined ? null : above.vdev,
      ...{ inProgress: 0, oldestMs: 0, flushErrors: 0 },
      ...{ read: countsOf(read), write: countsOf(write), flush: countsOf(flush), discard: countsOf(discard) },
    },
  ];
}

function factsOf({ driver, image, state, broken = null, imageState = null }: VbdInfo) {
  return { driver, image, state, broken, imageState };
}

function countsOf({ requests, bytes, errors, latencyUs }: KindStats): KindCounters {
  return { requests, bytes, errors, maxUs: latencyUs.max ?? 0, histogram: [] };
}
