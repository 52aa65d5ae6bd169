/**
 * The tapdisks of tap-ctl: a tapdisk is a bus named tapN, identified by the pid of its keeper. On it minor M is disk M,
 * so a minor has the same slot on every tapdisk.
 */
import { constants as os } from 'node:os';
import { FusetapError } from '../../drivers/errors.js';
import { showBus } from '../client/ask.js';
import { isNotRunning } from '../control/http-client.js';
import type { BusInfo, VbdInfo } from '../control/interface.js';
import { startKeeper } from '../keeper/start.js';
import { type BusPlace, listBusNames, resolveBus } from '../runtime/bus-place.js';
import { slotOfVdev } from '../slots/slots.js';
import { requireMinor } from './minors.js';

const BUS_NAME = /^tap(0|[1-9]\d{0,8})$/;
/** limit for an answer, so that one bus does not delay the others */
const LIMIT_MS = 5_000;

export interface Tapdisk {
  readonly place: BusPlace;
  readonly info: BusInfo;
}

/** A minor and the tapdisk that it is attached to. */
export interface TapVbd {
  readonly minor: number;
  readonly place: BusPlace;
  /** null if the tapdisk is dead */
  readonly info: BusInfo | null;
  /** null if no image is open in the minor */
  readonly vbd: VbdInfo | null;
}

/** The vdev of a minor on its bus. */
export function vdevOfMinor(minor: number): string {
  return `d${minor}`;
}

/** Starts a tapdisk, which runs until its last minor is detached. @returns its pid */
export async function spawnTapdisk(runtimeDir: string): Promise<number> {
  const taken = new Set(listBusNames(runtimeDir));
  for (let number = 0; ; number++) {
    const name = `tap${number}`;
    if (taken.has(name)) continue;
    try {
      const { pid } = await startKeeper(await resolveBus(name, runtimeDir), { persistent: true });
      return pid;
    } catch (error) {
      // another process has just taken this number
      if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
    }
  }
}

/** The tapdisks that answer, in the order of their pids. */
export async function listTapdisks(runtimeDir: string): Promise<Tapdisk[]> {
  const names = listBusNames(runtimeDir).filter((name) => BUS_NAME.test(name));
  const found = await Promise.all(
    names.map(async (name) => {
      const place = await resolveBus(name, runtimeDir);
      const info = await showIfRunning(place);
      return info === null ? [] : [{ place, info }];
    }),
  );
  return found.flat().sort((a, b) => (a.info.keeperPid ?? 0) - (b.info.keeperPid ?? 0));
}

export async function showIfRunning(place: BusPlace): Promise<BusInfo | null> {
  try {
    return await showBus(place, { timeoutMs: LIMIT_MS });
  } catch (error) {
    if (isNotRunning(error)) return null;
    throw error;
  }
}

/** @throws FusetapError NOT_FOUND (ENOENT) */
export async function requireTapdisk(runtimeDir: string, pid: number): Promise<Tapdisk> {
  const tapdisk = (await listTapdisks(runtimeDir)).find(({ info }) => info.keeperPid === pid);
  if (tapdisk !== undefined) return tapdisk;
  throw new FusetapError('NOT_FOUND', `no tapdisk with pid ${pid}`, {
    hint: 'tap-ctl list lists them',
    errno: os.errno.ENOENT,
  });
}

/**
 * A minor that is attached to the tapdisk with that pid, dead or alive.
 * @throws FusetapError NOT_FOUND: ENOENT for no such tapdisk, ENODEV for a minor that is not attached to it
 */
export async function requireAttached(runtimeDir: string, pid: number, minor: number): Promise<TapVbd> {
  const { owner } = requireMinorOrDevice(runtimeDir, minor);
  if (owner === null || owner.pid !== pid) {
    await requireTapdisk(runtimeDir, pid);
    throw noDevice(`minor ${minor} is not attached to tapdisk ${pid}`, `tap-ctl attach -p ${pid} -m ${minor}`);
  }
  const place = await resolveBus(owner.bus, runtimeDir);
  const running = await showIfRunning(place);
  // ignore another tapdisk that has the same name now
  const info = running?.keeperPid === pid || running?.state === 'orphaned' ? running : null;
  return { minor, place, info, vbd: info === null ? null : vbdOfMinor(info, minor) };
}

export function vbdOfMinor(info: BusInfo, minor: number): VbdInfo | null {
  const slot = slotOfVdev(vdevOfMinor(minor));
  return info.vbds.find((vbd) => vbd.slot === slot) ?? null;
}

/** A minor with a vbd. @throws FusetapError NOT_FOUND with ENODEV if no image is open in it */
export async function requireOpen(
  runtimeDir: string,
  pid: number,
  minor: number,
): Promise<TapVbd & { readonly vbd: VbdInfo }> {
  const found = await requireAttached(runtimeDir, pid, minor);
  const { vbd } = found;
  if (vbd !== null) return { ...found, vbd };
  throw noDevice(`no image is open in minor ${minor}`, `tap-ctl open -p ${pid} -m ${minor} -a TYPE:PATH`);
}

function requireMinorOrDevice(runtimeDir: string, minor: number): ReturnType<typeof requireMinor> {
  try {
    return requireMinor(runtimeDir, minor);
  } catch (error) {
    if (!(error instanceof FusetapError) || error.code !== 'NOT_FOUND') throw error;
    throw noDevice(error.message, error.hint ?? '');
  }
}

function noDevice(message: string, hint: string): FusetapError {
  return new FusetapError('NOT_FOUND', message, { hint, errno: os.errno.ENODEV });
}
