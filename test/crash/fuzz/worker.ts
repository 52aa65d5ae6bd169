/** Tries mutants one after the other, in a thread that can be ended if one of them never ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { type FuzzFormat, fuzzImages } from './images.js';
import { tryMutant } from './mutant.js';

export interface FuzzWork {
  readonly format: FuzzFormat;
  readonly directory: string;
  readonly firstSeed: number;
  /** null: until the thread is ended */
  readonly mutants: number | null;
}

export type FuzzMessage =
  | { readonly kind: 'begins'; readonly seed: number }
  | { readonly kind: 'ended'; readonly refused: number }
  | { readonly kind: 'fault'; readonly text: string }
  | { readonly kind: 'over' };

const { format, directory, firstSeed, mutants } = workerData as FuzzWork;
const tell = (message: FuzzMessage): void => parentPort?.postMessage(message);

const images = await fuzzImages(format, directory);
for (let seed = firstSeed; mutants === null || seed < firstSeed + mutants; seed++) {
  const image = images[seed % images.length];
  if (image === undefined) break;
  tell({ kind: 'begins', seed });
  try {
    const { refused } = await tryMutant(image, seed);
    tell({ kind: 'ended', refused });
  } catch (error) {
    tell({ kind: 'fault', text: (error as Error).message });
  }
}
tell({ kind: 'over' });
