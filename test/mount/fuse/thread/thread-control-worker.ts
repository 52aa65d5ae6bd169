/**
 * A worker thread for thread-control.test.ts. Like the threads of a server, it does not return to its event loop while
 * it works. It ends when the test sets a word in the shared memory.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { ThreadGate, type ThreadMemory } from '../../../../mount/fuse/thread/thread-control.js';

/** words of the memory that test and workers share */
export const STOP = 0;
/** threads that have a permit now, and the maximum so far */
export const HOLDING = 1;
export const MOST_HOLDING = 2;
/** how often a thread used a resource after it was taken away */
export const WRONG_USES = 3;
export const USES = 4;
/** permits taken */
export const TAKEN = 5;
/** messages that parked threads took */
export const TAKEN_PARKED = 6;
/** from this word on: 1 if the resource may be used */
export const RESOURCES = 16;
export const WORDS = RESOURCES + 64;

/** the node whose requests they serve */
export const NODE = 2;

export interface WorkerTask {
  readonly kind: 'permits' | 'lending' | 'offers' | 'resources';
  readonly thread: number;
  readonly memory: ThreadMemory;
  readonly shared: SharedArrayBuffer;
  readonly rounds: number;
}

/** test → worker */
export interface ResourceUpdate {
  readonly resource: number;
  readonly isThere: boolean;
}

function spin(turns: number): void {
  for (let i = 0; i < turns; i++) Math.sqrt(i);
}

/** Takes and gives permits, and counts the threads that have one. */
function takePermits({ thread, memory, shared, rounds }: WorkerTask, port: MessagePort): void {
  const words = new Int32Array(shared);
  const gate = new ThreadGate(memory, thread);
  const takeMessages = (): void => {
    while (receiveMessageOnPort(port) !== undefined) Atomics.add(words, TAKEN_PARKED, 1);
    gate.seen();
  };
  for (let round = 0; round < rounds && Atomics.load(words, STOP) === 0; round++) {
    gate.takePermit(takeMessages);
    gate.takePermit(takeMessages);
    Atomics.add(words, TAKEN, 1);
    const holding = Atomics.add(words, HOLDING, 1) + 1;
    for (let most = Atomics.load(words, MOST_HOLDING); holding > most; ) {
      most = Atomics.compareExchange(words, MOST_HOLDING, most, holding);
    }
    // mostly short, so that threads meet while they take and give
    spin(round % 16 === 0 ? 300 : (round + thread) % 8);
    Atomics.sub(words, HOLDING, 1);
    gate.givePermit();
    gate.givePermit();
  }
}

/** Takes permits and lends them to the main thread, which may not want them. */
function lendPermits({ thread, memory, shared, rounds }: WorkerTask): void {
  const words = new Int32Array(shared);
  const gate = new ThreadGate(memory, thread);
  for (let round = 0; round < rounds && Atomics.load(words, STOP) === 0; round++) {
    gate.takePermit(() => {});
    Atomics.add(words, TAKEN, 1);
    const holding = Atomics.add(words, HOLDING, 1) + 1;
    for (let most = Atomics.load(words, MOST_HOLDING); holding > most; ) {
      most = Atomics.compareExchange(words, MOST_HOLDING, most, holding);
    }
    spin((round + thread) % 8);
    Atomics.sub(words, HOLDING, 1);
    gate.lendPermit();
  }
  gate.givePermit();
}

/** Waits for permits, has them for a moment, and takes what the main thread offers meanwhile: counts it in TAKEN. */
function takeOffers({ thread, memory, shared }: WorkerTask, port: MessagePort): void {
  const words = new Int32Array(shared);
  const gate = new ThreadGate(memory, thread);
  const takeMessages = (): void => {
    for (;;) {
      const received = receiveMessageOnPort(port) as { message: number } | undefined;
      if (received === undefined) break;
      if (!gate.takeOffer(received.message)) continue;
      Atomics.add(words, TAKEN, 1);
      // an offer that was taken back, or one that came twice
      if (received.message <= last) Atomics.add(words, WRONG_USES, 1);
      last = received.message;
      // as a request that waits for its disk
      if (last % 3 === 0) gate.givePermit();
    }
    gate.seen();
  };
  let last = 0;
  for (let round = 0; Atomics.load(words, STOP) === 0; round++) {
    gate.leave();
    gate.takePermit(takeMessages);
    // as if it was blocked in read(2): it sees nothing
    spin((round * 37 + thread) % 3000);
    if (gate.enter(NODE)) takeMessages();
    spin(round % 50);
    gate.givePermit();
  }
}

/** Uses resources as long as they are not taken away, as a thread does with windows. */
function useResources({ thread, memory, shared }: WorkerTask, port: MessagePort): void {
  const words = new Int32Array(shared);
  const gate = new ThreadGate(memory, thread);
  const known = new Set<number>();
  for (let round = thread; Atomics.load(words, STOP) === 0; round++) {
    if (gate.enter(NODE)) {
      for (;;) {
        const received = receiveMessageOnPort(port) as { message: ResourceUpdate } | undefined;
        if (received === undefined) break;
        if (received.message.isThere) known.add(received.message.resource);
        else known.delete(received.message.resource);
      }
      gate.seen();
    }
    for (const resource of known) {
      spin(round % 200);
      Atomics.add(words, USES, 1);
      if (Atomics.load(words, RESOURCES + resource) !== 1) Atomics.add(words, WRONG_USES, 1);
    }
    gate.leave();
    // now and then a thread has nothing to do for a while
    if (round % 64 === 0) Atomics.wait(words, STOP, 0, 1);
  }
}

if (parentPort !== null) {
  const task = workerData as WorkerTask;
  if (task.kind === 'permits') takePermits(task, parentPort);
  else if (task.kind === 'lending') lendPermits(task);
  else if (task.kind === 'offers') takeOffers(task, parentPort);
  else useResources(task, parentPort);
}
