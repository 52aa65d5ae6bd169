/** The names of the files of a bus as clients get them: the server knows vdevs, but neither paths nor slots. */
import { join } from 'node:path';
import type { BusPlace } from '../runtime/bus-place.js';
import type { FileNames } from './interface.js';

type Known = Omit<FileNames, 'bus' | 'slot' | 'path'> & { readonly nodeId: number; readonly slot: number };

export function namesOfBus({ name, path }: BusPlace, files: readonly Known[]): FileNames[] {
  return files.map(({ nodeId: _, vdev, slot, ...names }) => {
    return { bus: name, vdev, slot, path: join(path, vdev), ...names };
  });
}
