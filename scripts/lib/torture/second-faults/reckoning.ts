/** The end of a torture: compares the resources of the buses with those before, checks images, finds leftovers. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Holdings, leaks } from '../figures.js';
import { busProcesses, measure } from '../holdings.js';
import type { Bus } from './bus.js';
import { unwrittenPages } from './page-cache.js';
import type { Scene } from './scene.js';
import { loopsBelow, type Stage } from './stage.js';

const SETTLING_MS = 1_000;
const SETTLED_ROUNDS = 2;
/** processes and files may stay for this time */
const PATIENCE_MS = 15_000;

/** The resources of the buses with new servers, after all their threads have started. */
export async function holdingsOf({ buses, stage }: Scene): Promise<Holdings> {
  for (const bus of buses) await bus.demand('upgrade', ['upgrade']);
  for (let last = await measureNow(stage), same = 0; ; ) {
    await delay(SETTLING_MS);
    const now = await measureNow(stage);
    same = now.fds === last.fds ? same + 1 : 0;
    if (same === SETTLED_ROUNDS) return now;
    last = now;
  }
}

/** The memory of servers is left out: they are new. */
async function measureNow({ runtimeDir }: Stage): Promise<Holdings> {
  return { ...(await measure(runtimeDir)), serverBytes: 0 };
}

/** Ends all buses, and compares. @returns the resources that have grown more than allowed */
export async function endScene(scene: Scene, before: Holdings): Promise<string[]> {
  const { living, buses, stage } = scene;
  const leaked = living.length === buses.length ? await leaksSince(scene, before) : [];
  for (const bus of living) {
    try {
      await endBus(bus);
    } catch (error) {
      bus.journal.error(bus.name, `at the end: ${(error as Error).message}`);
    }
  }
  if (living.length < buses.length) return leaked;
  const left = await leftovers(scene);
  // the torture's own loop devices are on images of file systems
  const loops = (await loopsBelow(stage.directory)).filter((file) => !file.endsWith('.ext4'));
  if (loops.length > 0) left.push(`loop devices on ${loops.join(', ')}`);
  return [...leaked, ...left.map((text) => `after stop: ${text}`)];
}

async function leaksSince(scene: Scene, before: Holdings): Promise<string[]> {
  const deadline = Date.now() + PATIENCE_MS;
  for (let found = leaks(before, await holdingsOf(scene)); ; found = leaks(before, await measureNow(scene.stage))) {
    if (found.length === 0 || Date.now() > deadline) return found;
    await delay(SETTLING_MS);
  }
}

/** Reads all disks once more, stops the bus, and checks the images. */
async function endBus(bus: Bus): Promise<void> {
  const { journal, name, writer } = bus;
  const all = [...bus.disks, ...bus.sick];
  for (const { path } of all) await writer.end(path, true);
  const changed = (await bus.info()).vbds.filter(({ changedOutside }) => changedOutside);
  for (const { vdev } of changed) journal.error(name, `${vdev} is said to be changed by somebody else, and is not`);
  await bus.demand('stop', ['stop']);
  for (const { path, image, driver } of all.filter((disk) => disk.driver !== 'ram')) {
    const pages = await unwrittenPages(image).catch(() => 0);
    if (pages > 0) journal.error(name, `after stop ${pages} pages of ${image} (${driver}) are not on its disk`);
    await writer.ask({ act: 'compare', path, file: image });
  }
  await writer.close();
}

async function leftovers({ stage }: Scene): Promise<string[]> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const { mounts, files, processes } = await measure(stage.runtimeDir);
    // the tmpfs of the runtime directory itself
    const left = { mounts: mounts - 1, files, processes };
    const found = Object.entries(left).flatMap(([what, count]) => (count > 0 ? [`${what}: ${count}`] : []));
    if (found.length === 0 || Date.now() > deadline) {
      const pids = (await busProcesses(stage.runtimeDir)).map(({ pid, program }) => `${program} ${pid}`);
      return [...found, ...pids, ...(files > 0 ? await filesLeft(stage) : [])];
    }
    await delay(SETTLING_MS / 2);
  }
}

/** The leftovers of buses in the runtime directory, with the last line of a log, which explains them. */
async function filesLeft({ runtimeDir }: Stage): Promise<string[]> {
  const entries = await Promise.all(
    ['state', 'ram', 'bus'].map(async (place) =>
      (await readdir(join(runtimeDir, place)).catch(() => [])).map((name) => join(place, name)),
    ),
  );
  return await Promise.all(
    entries.flat().map(async (path) => {
      const log = await readFile(join(runtimeDir, path, 'log'), 'utf8').catch(() => '');
      const names = await readdir(join(runtimeDir, path)).catch(() => []);
      return `${path} (${names.join(' ')}): ${log.trimEnd().split('\n').at(-1)}`;
    }),
  );
}
