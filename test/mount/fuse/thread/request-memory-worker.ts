/** Takes places and gives them back, many times; nobody else may have one meanwhile. */
import { workerData } from 'node:worker_threads';
import { type RequestMemory, RequestPlaces } from '../../../../mount/fuse/thread/request-memory.js';

export interface PlacesTask {
  readonly memory: RequestMemory;
  /** one word a place: how many have it now */
  readonly users: SharedArrayBuffer;
  readonly rounds: number;
}

const { memory, users: usersMemory, rounds } = workerData as PlacesTask;
const places = new RequestPlaces(memory);
const users = new Int32Array(usersMemory);
for (let round = 0; round < rounds; round++) {
  const held = Array.from({ length: 1 + (round % 3) }, () => places.takeAnother()?.number);
  for (const number of held) {
    if (number === undefined) throw new Error('nothing was free');
    if (Atomics.add(users, number, 1) !== 0) throw new Error(`place ${number} was given twice`);
  }
  for (const number of held) {
    Atomics.sub(users, number as number, 1);
    places.give(number as number);
  }
}
