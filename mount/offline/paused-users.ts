/** The vbds that use a file and are paused: they do not write to it until they are resumed. */
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { askEither } from '../client/ask.js';
import { resolveBus, runtimeDir } from '../runtime/bus-place.js';

export class PausedUsers {
  /** what the buses have said, by bus and vbd: keeper and server of one bus both use the file */
  readonly #asked = new Map<string, Promise<boolean>>();
  #areThere = false;

  /** whether `include` has found one */
  get areThere(): boolean {
    return this.#areThere;
  }

  /** Whether a user of the file is a vbd that the user has paused; asks its bus. */
  async include({ bus, vdev }: Holder): Promise<boolean> {
    if (bus === undefined || vdev === undefined) return false;
    const key = `${bus}/${vdev}`;
    const asked = this.#asked.get(key) ?? isPaused(bus, vdev);
    this.#asked.set(key, asked);
    const isIncluded = await asked;
    this.#areThere ||= isIncluded;
    return isIncluded;
  }
}

/** A bus that does not answer may be writing. */
async function isPaused(bus: string, vdev: string): Promise<boolean> {
  try {
    const place = await resolveBus(bus, runtimeDir(process.env, process.geteuid?.() ?? 0));
    const vbds = await askEither(place, 'GET /vbds', {});
    return vbds.some((vbd) => vbd.vdev === vdev && vbd.pausedByUser === true);
  } catch (error) {
    if (error instanceof FusetapError) return false;
    throw error;
  }
}
