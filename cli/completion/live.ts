/** The buses, vbds and mounts that exist now, for completion. An answer that takes too long is left out. */
import { listBuses, resolveBus, showBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { callersRuntimeDir } from '../options.js';

/** how long a user who has pressed Tab waits */
const LIMIT_MS = 1_000;

/** A word that can complete the one under the cursor. */
export interface Offered {
  readonly word: string;
  readonly about: string;
}

const PLACES = [...'abcdefgh'].map((letter) => `xvd${letter}`);

/** The vbds of a bus. @param bus its name or directory, as `--bus` takes it */
export async function vbdsOf(bus: string | undefined): Promise<readonly VbdInfo[]> {
  const place = await resolveBus(bus ?? (process.env.FUSETAP_BUS || '0'), callersRuntimeDir());
  return (await showBus(place, { timeoutMs: LIMIT_MS })).vbds;
}

export async function allVbds(): Promise<readonly VbdInfo[]> {
  const { buses } = await listBuses(callersRuntimeDir());
  return buses.flatMap(({ vbds }) => vbds);
}

export async function busNames(): Promise<string[]> {
  const { buses, troubles } = await listBuses(callersRuntimeDir());
  return [...buses, ...troubles].map(({ bus }) => bus).sort();
}

export async function mountedDirectories(): Promise<string[]> {
  const { listMountedImages } = await import('../../mount/file-system/index.js');
  return listMountedImages(callersRuntimeDir());
}

/** The names of disks that are attached, as `LABEL=root`. Names that a shell would have to quote are left out. */
export async function tagsOf(bus: string | undefined): Promise<Offered[]> {
  const { askNames, NAME_KINDS, tagText } = await import('../../mount/client/finding/names.js');
  const files = await askNames(await resolveBus(bus ?? (process.env.FUSETAP_BUS || '0'), callersRuntimeDir()));
  const tags = files.flatMap((file) =>
    NAME_KINDS.flatMap((kind) => {
      const name = file[kind];
      return name !== null && /^[\w.:@+-]+$/.test(name) ? [{ word: tagText(kind, name), about: file.vdev }] : [];
    }),
  );
  return [...new Map(tags.map((tag) => [tag.word, tag])).values()];
}

/** A few free places on a bus: a list of all would not help. */
export async function freePlaces(bus: string | undefined): Promise<string[]> {
  const vbds = await inTime(vbdsOf(bus));
  return PLACES.filter((place) => !vbds.some(({ vdev }) => vdev === place));
}

/** The answer if it comes in time, else nothing: completion must not print errors. */
export async function inTime<T>(question: Promise<readonly T[]>): Promise<readonly T[]> {
  const nothing: Promise<readonly T[]> = new Promise((resolve) => {
    setTimeout(() => resolve([]), LIMIT_MS).unref();
  });
  return Promise.race([question.catch(() => []), nothing]);
}
