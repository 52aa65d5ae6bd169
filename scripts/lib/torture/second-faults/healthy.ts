/** Checks what must work on a bus at any time: every command and all I/O on disks without a fault. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { AttachedDisk, Bus, Disk } from './bus.js';
import { targetOf } from './bus.js';
import type { Random } from './random.js';

const GUEST_BYTES = 2 << 20;
const RETRY_MS = 200;
let guestsSoFar = 0;
let copiesSoFar = 0;

/** Attaches a new disk, writes and reads there, and detaches it. @returns whether it was attached */
export async function comeAndGo(bus: Bus, random: Random, limitMs?: number): Promise<boolean> {
  const guest = await attachGuest(bus, random, limitMs);
  if (guest === null) return false;
  await bus.writer.ask({ act: 'probe', target: targetOf(guest) });
  await detachGuest(bus, guest, limitMs);
  return true;
}

export async function attachGuest(bus: Bus, random: Random, limitMs?: number): Promise<AttachedDisk | null> {
  const image = await bus.stage.image(`guest-${bus.name}-${++guestsSoFar}.img`, GUEST_BYTES);
  const driver = random.pick(['aio', 'sync', 'ram'] as const);
  const disk: Disk = { driver, passthrough: 'off', image, sizeBytes: GUEST_BYTES };
  const guest = await bus.attach(disk, limitMs);
  if (guest === null) await rm(image);
  return guest;
}

/** Detaches. If that is refused and a fault excuses it, tries again until it succeeds. */
export async function detachGuest(bus: Bus, guest: AttachedDisk, limitMs?: number): Promise<void> {
  const options = limitMs === undefined ? {} : { limitMs };
  const isGone = async (): Promise<boolean> => {
    const info = await bus.info().catch(() => null);
    return info?.vbds.every(({ vdev }) => vdev !== guest.vdev) ?? false;
  };
  while ((await bus.demand('detach', ['detach', '--wait', '10', guest.vdev], options)) === null) {
    if (bus.isLost || (await isGone())) break;
    if (!bus.journal.isCommandExcused(bus.name, 'detach', Date.now())) break;
  }
  await rm(guest.image);
}

/** Checks that `ls` shows everything that is attached. */
async function look(bus: Bus, limitMs: number): Promise<void> {
  const listing = await bus.demand('ls', ['ls', '--json'], { limitMs });
  const missing = bus.disks.filter(({ path }) => listing !== null && !listing.stdout.includes(`"${path}"`));
  if (missing.length > 0) bus.journal.error(bus.name, `ls does not show ${missing.map(({ vdev }) => vdev).join(', ')}`);
  await bus.demand('show', ['show', '--json', bus.disks[0]?.vdev ?? ''], { limitMs });
}

async function pauseAndResume(bus: Bus, random: Random, limitMs: number): Promise<void> {
  const { vdev, path } = random.pick(bus.disks.filter(({ passthrough }) => passthrough === 'off'));
  await bus.demand('pause', ['pause', vdev], { limitMs });
  // another lane may be saving it; that save ends
  const isResumed = () => bus.demand('resume', ['resume', vdev], { limitMs, mayFail: /is being saved/ });
  while ((await isResumed()) === null && !bus.isLost) await delay(RETRY_MS);
  await bus.writer.progress([path], limitMs);
}

/** Saves a disk while its writer runs; the copy must be the state of one moment. */
export async function save(bus: Bus, random: Random, limitMs?: number): Promise<void> {
  const disk = random.pick(bus.disks.filter(({ passthrough }) => passthrough === 'off'));
  // another copy of the same bus may be in progress
  const copy = join(bus.stage.directory, 'images', `copy-${bus.name}-${++copiesSoFar}.img`);
  // a copy fails if the server that makes it ends; another lane may be saving the same disk
  const options = { ...(limitMs === undefined ? {} : { limitMs }), mayFail: /the server died|is being saved/ };
  if ((await bus.demand('save', ['save', '--force', disk.vdev, copy], options)) === null) return;
  await bus.writer.ask({ act: 'inspect', target: { ...targetOf(disk), path: copy } });
  await rm(copy);
}

/** Every command in random order, and I/O on all healthy disks, each within a limit. @throws Error the first failure */
export async function proveHealthy(bus: Bus, random: Random, limitMs = bus.healthyLimitMs): Promise<void> {
  const paths = bus.disks.map(({ path }) => path);
  const acts = [
    () => look(bus, limitMs),
    () => bus.demand('stats', ['stats', '--json'], { limitMs }),
    () => pauseAndResume(bus, random, limitMs),
    () => save(bus, random, limitMs),
    () => comeAndGo(bus, random, limitMs),
    async () => bus.journal.timed('I/O of all healthy disks', await bus.writer.progress(paths, limitMs)),
  ];
  while (acts.length > 0) {
    const [act] = acts.splice(random.below(acts.length), 1);
    await act?.();
    if (bus.isLost) return;
  }
}
