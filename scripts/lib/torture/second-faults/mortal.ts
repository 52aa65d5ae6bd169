/** Buses that are started to be ended: each serves for a while, then is ended in some way, and its images are checked. */
import { rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { mountOn } from '../../../../system/proc.js';
import { Bus, type Disk, eventually } from './bus.js';
import type { Ending } from './endings.js';
import type { IsOver } from './lanes.js';
import { unwrittenPages } from './page-cache.js';
import type { Random } from './random.js';
import type { Scene } from './scene.js';
import type { Stage } from './stage.js';

const DISK_BYTES = 4 << 20;
/** so large that some part was never written */
const MEMORY_BYTES = 64 << 20;
const GONE_MS = 15_000;
const LOADED_MS = 2_000;
/** faults that may be active while a bus is ended */
const COMPANIONS = ['full', 'package', 'node'];

/** Starts and ends buses, one after another. */
export async function liveAndEnd(
  scene: Scene,
  endings: readonly Ending[],
  random: Random,
  isOver: IsOver,
): Promise<void> {
  for (let i = 0; !isOver() && endings.length > 0; i++) {
    await delay(random.between(100, 1_000));
    // a bus cannot start while its package or node is moved away
    if (scene.free(COMPANIONS).length < scene.faults.filter(({ name }) => COMPANIONS.includes(name)).length) continue;
    const name = `m${i}`;
    try {
      await live(name, scene, random.pick(endings), random);
    } catch (error) {
      scene.journal.error(name, (error as Error).message);
    }
  }
}

/** @returns null if a fault excuses that it did not start */
async function begin(name: string, { stage, journal }: Scene, ending: Ending): Promise<Bus | null> {
  const fromMs = Date.now();
  try {
    return await Bus.begin(name, stage, journal, ending.env);
  } catch (error) {
    if (!journal.isCommandExcused(name, 'start', fromMs)) throw error;
    journal.refused.set('start', (journal.refused.get('start') ?? 0) + 1);
    await removeKeptLog(name, stage);
    return null;
  }
}

/** Keeps the log of a bus that started or ended badly, to be read. Everything else that is left is found at the end. */
async function removeKeptLog(name: string, { runtimeDir }: Stage): Promise<void> {
  const stateDir = join(runtimeDir, 'state', name);
  await rm(join(stateDir, 'log'), { force: true });
  // a client whose package was moved away cannot remove it
  await rm(join(stateDir, 'lock'), { force: true });
  await rmdir(stateDir).catch(() => {});
}

async function live(name: string, scene: Scene, ending: Ending, random: Random): Promise<void> {
  const bus = await begin(name, scene, ending);
  if (bus === null) return;
  try {
    // refused because of a fault, or reported already
    if (!(await adoptDisks(bus))) return;
    await delay(random.between(200, 1_500));
    if (random.isOneIn(3)) await bus.settled(await bus.killServer());
    // after this time a server has loaded the code that it needs without its keeper: the package may be moved away
    await delay(bus.stage.pace.scaled(LOADED_MS));
    const standing = scene.journal.begin(ending.name, name);
    try {
      await play(bus, scene, ending, random);
      await eventually('its processes and its mount are gone', bus.stage.pace.scaled(GONE_MS), () => isGone(bus));
      await judgeImages(bus, ending);
    } catch (error) {
      scene.journal.error(name, `${ending.name}: ${(error as Error).message}`);
    } finally {
      scene.journal.end(standing);
    }
  } finally {
    await takeAway(bus);
    if (ending.keepsLog) await removeKeptLog(name, scene.stage);
  }
}

/** @returns false if one cannot be attached now */
async function adoptDisks(bus: Bus): Promise<boolean> {
  const wishes: [Disk['driver'], number][] = [
    ['aio', DISK_BYTES],
    ['sync', DISK_BYTES],
    ['ram', MEMORY_BYTES],
  ];
  for (const [driver, sizeBytes] of wishes) {
    const image = await bus.stage.image(`${bus.name}-${driver}.img`, sizeBytes);
    const disk = await bus.attach({ driver, passthrough: 'off', image, sizeBytes });
    if (disk === null) return false;
    await bus.tend(disk);
  }
  return true;
}

/** Ends it, perhaps while another fault is active. */
async function play(bus: Bus, scene: Scene, ending: Ending, random: Random): Promise<void> {
  const companions = scene.free(COMPANIONS);
  if (companions.length === 0 || random.isOneIn(2)) return ending.play(bus, random);
  await scene.with(random.pick(companions), bus, random, () => ending.play(bus, random));
}

async function isGone(bus: Bus): Promise<boolean> {
  if ((await mountOn(bus.place.path)) !== undefined) return false;
  return bus.info(1_000).then(
    () => false,
    () => true,
  );
}

async function judgeImages(bus: Bus, ending: Ending): Promise<void> {
  for (const { path, image, driver } of bus.disks) {
    if (driver === 'ram') continue;
    if (ending.isFlushed) {
      const pages = await unwrittenPages(image).catch(() => 0);
      if (pages > 0) bus.journal.error(bus.name, `${ending.name}: ${pages} pages of ${image} are not on its disk`);
    }
    await bus.writer.end(path, false);
    await bus.writer.ask({ act: 'compare', path, file: image });
  }
}

async function takeAway(bus: Bus): Promise<void> {
  bus.writer.isEndExpected = true;
  if (!(await isGone(bus))) await bus.command('stop --force', ['stop', '--force']);
  await bus.writer.close();
  for (const { image, driver } of bus.disks) {
    if (driver !== 'ram' || !bus.isLost) await rm(image, { force: true });
  }
}
