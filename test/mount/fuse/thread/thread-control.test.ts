/** The shared memory of threads, with real threads: permits, and when it is safe to close a resource of theirs. */
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import {
  createThreadMemory,
  ThreadGate,
  type ThreadMemory,
  ThreadWatch,
} from '../../../../mount/fuse/thread/thread-control.js';
import { eventually } from '../../../e2e/command.js';
import {
  HOLDING,
  MOST_HOLDING,
  NODE,
  RESOURCES,
  type ResourceUpdate,
  STOP,
  TAKEN,
  TAKEN_PARKED,
  USES,
  WORDS,
  type WorkerTask,
  WRONG_USES,
} from './thread-control-worker.js';

const ROUNDS = 20_000;
/** where the memory counts free permits */
const PERMITS_WORD = 1;

interface Crew {
  readonly words: Int32Array;
  readonly workers: Worker[];
  /** resolves when all have ended; rejects if one failed */
  readonly ended: Promise<unknown>;
}

function startCrew(t: Test, threads: number, memory: ThreadMemory, task: Pick<WorkerTask, 'kind' | 'rounds'>): Crew {
  const shared = new SharedArrayBuffer(WORDS * 4);
  const words = new Int32Array(shared);
  const workers = Array.from({ length: threads }, (_, thread) => {
    const workerData: WorkerTask = { ...task, thread, memory, shared };
    return new Worker(new URL('./thread-control-worker.js', import.meta.url), { workerData });
  });
  const ended = Promise.all(
    workers.map(
      (worker) => new Promise<void>((resolve, reject) => worker.once('exit', () => resolve()).once('error', reject)),
    ),
  );
  t.teardown(async () => {
    Atomics.store(words, STOP, 1);
    await Promise.all(workers.map((worker) => worker.terminate()));
  });
  return { words, workers, ended };
}

t.test('never more threads have a permit than there are permits', async (t) => {
  for (const [threads, permits] of [
    [5, 1],
    [5, 2],
    [3, 3],
  ] as const) {
    const memory = createThreadMemory(threads);
    const { words, ended } = startCrew(t, threads, memory, { kind: 'permits', rounds: ROUNDS });
    new ThreadWatch(memory, threads).permit(permits);
    await ended;
    t.ok(Atomics.load(words, MOST_HOLDING) <= permits, `${permits} permits for ${threads} threads`);
    t.equal(Atomics.load(words, TAKEN), threads * ROUNDS, 'every thread came to its turns');
    t.equal(Atomics.load(words, HOLDING), 0);
  }
});

t.test('permits that threads lend come back, also if the main thread stands still', async (t) => {
  const [threads, permits] = [4, 2];
  const memory = createThreadMemory(threads);
  const watch = new ThreadWatch(memory, threads);
  const { words, ended } = startCrew(t, threads, memory, { kind: 'lending', rounds: 300 });
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  watch.permit(permits);
  let lent = 0;
  for (let turn = 0; !isOver; turn++) {
    watch.readsItself = turn % 50 !== 0;
    if (watch.beginRead()) lent++;
    // most turns give back; some are late, and in some others read meanwhile
    if (turn % 97 === 0) await delay(25);
    if (turn % 5 !== 0) watch.giveBack();
    await delay(0);
  }
  await ended;
  watch.giveBack();
  t.equal(Atomics.load(words, TAKEN), threads * 300, 'every thread came to its turns');
  t.ok(lent > 10, `permits were lent in ${lent} turns`);
  // permits that were lent are not counted as held by a thread
  t.ok(Atomics.load(words, MOST_HOLDING) <= permits);
  // all threads have given theirs away
  t.equal(Atomics.load(new Int32Array(memory), PERMITS_WORD), permits, 'there are as many as at first');
});

t.test('a thread takes back the permit that it lent to a main thread that stands still', async (t) => {
  const memory = createThreadMemory(1);
  const watch = new ThreadWatch(memory, 1);
  watch.readsItself = true;
  const { words, ended } = startCrew(t, 1, memory, { kind: 'lending', rounds: 5 });
  watch.permit(1);
  // nothing is given back
  await ended;
  t.equal(Atomics.load(words, TAKEN), 5);
});

t.test('a request that is offered to threads is served exactly once', async (t) => {
  const threads = 3;
  const memory = createThreadMemory(threads);
  const watch = new ThreadWatch(memory, threads);
  const { words, workers } = startCrew(t, threads, memory, { kind: 'offers', rounds: 0 });
  watch.permit(1);
  let [given, kept] = [0, 0];
  for (let turn = 0; turn < 20_000 && given < 2000; turn++) {
    const thread = turn % threads;
    if (watch.offer(thread, (number) => workers[thread]?.postMessage(number))) given++;
    else kept++;
    if (turn % 7 === 0) await delay(0);
  }
  const isQuiet = (): boolean => {
    watch.announce();
    return !Array.from({ length: threads }, (_, thread) => watch.isOffered(thread)).includes(true);
  };
  await eventually('the last offers are taken', 10_000, isQuiet);
  t.equal(Atomics.load(words, TAKEN), given, 'what a thread promised to serve, it has served');
  t.equal(Atomics.load(words, WRONG_USES), 0, 'and only that');
  t.ok(given > 100, `${given} were given, ${kept} were not`);
  Atomics.store(words, STOP, 1);
  watch.permit(threads);
});

t.test('no thread begins before there are permits, and parked threads wake as permits come', async (t) => {
  const threads = 4;
  const memory = createThreadMemory(threads);
  const watch = new ThreadWatch(memory, threads);
  const { words, ended } = startCrew(t, threads, memory, { kind: 'permits', rounds: 1 });
  await delay(150);
  t.equal(Atomics.load(words, TAKEN), 0, 'all are parked');
  watch.permit(1);
  await eventually('one permit goes from thread to thread', 10_000, () => Atomics.load(words, TAKEN) === threads);
  await ended;
  t.equal(Atomics.load(words, MOST_HOLDING), 1);
});

t.test('parked threads take their messages, which would pile up otherwise', async (t) => {
  const threads = 3;
  const memory = createThreadMemory(threads);
  const watch = new ThreadWatch(memory, threads);
  const { words, workers, ended } = startCrew(t, threads, memory, { kind: 'permits', rounds: 1 });
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('online', resolve))));
  for (let round = 1; round <= 20; round++) for (const worker of workers) worker.postMessage(round);
  await eventually('they have been taken', 10_000, () => {
    // repeatedly: a thread that is not waiting yet takes them with the next message
    watch.announce();
    return Atomics.load(words, TAKEN_PARKED) === threads * 20;
  });
  t.equal(Atomics.load(words, TAKEN), 0, 'without a permit');
  watch.permit(1);
  await ended;
});

t.test('several permits wake several threads', async (t) => {
  const memory = createThreadMemory(3);
  const gate = new ThreadGate(memory, 2);
  const watch = new ThreadWatch(memory, 3);
  watch.permit(1);
  gate.takePermit(() => {});
  const { words, ended } = startCrew(t, 2, memory, { kind: 'permits', rounds: 500 });
  await delay(50);
  t.equal(Atomics.load(words, TAKEN), 0, 'the only permit is taken');
  gate.givePermit();
  watch.permit(1);
  await ended;
  t.equal(Atomics.load(words, TAKEN), 1_000);
});

t.test('giving a permit that the thread does not have changes nothing', async (t) => {
  const memory = createThreadMemory(2);
  const gate = new ThreadGate(memory, 0);
  gate.givePermit();
  const watch = new ThreadWatch(memory, 2);
  const { words } = startCrew(t, 1, memory, { kind: 'permits', rounds: 1 });
  await delay(100);
  t.equal(Atomics.load(words, TAKEN), 0);
  watch.permit(1);
  await eventually('the thread is let in', 10_000, () => Atomics.load(words, TAKEN) === 1);
});

t.test('awaitUnused resolves only when no thread uses the window that was taken away', async (t) => {
  const threads = 3;
  const memory = createThreadMemory(threads);
  const watch = new ThreadWatch(memory, threads);
  const { words, workers } = startCrew(t, threads, memory, { kind: 'resources', rounds: 0 });
  const tell = (update: ResourceUpdate): number => {
    for (const worker of workers) worker.postMessage(update);
    return watch.announce();
  };
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('online', resolve))));
  const deadline = performance.now() + 4_000;
  let rounds = 0;
  for (; performance.now() < deadline && rounds < 3_000; rounds++) {
    const resource = rounds % 64;
    Atomics.store(words, RESOURCES + resource, 1);
    tell({ resource, isThere: true });
    const uses = Atomics.load(words, USES);
    // every second time they are using it when it is taken away
    if (rounds % 2 === 0) await eventually('it is used', 10_000, () => Atomics.load(words, USES) > uses);
    await watch.awaitUnused(tell({ resource, isThere: false }), NODE);
    Atomics.store(words, RESOURCES + resource, 0);
    if (rounds % 16 === 0) await delay(1);
  }
  t.comment(`${rounds} rounds, ${Atomics.load(words, USES)} uses`);
  t.ok(rounds > 100);
  t.equal(Atomics.load(words, WRONG_USES), 0);
});

t.test('a thread asks for another thread when nobody reads the device any more', (t) => {
  const memory = createThreadMemory(2);
  let asked = 0;
  const gates = [0, 1].map((thread) => new ThreadGate(memory, thread, () => void asked++));
  const watch = new ThreadWatch(memory, 2);
  watch.permit(2);
  const wait = (): void => gates.forEach((gate) => void gate.takePermit(() => {}));
  const giveAll = (): void => gates.forEach((gate) => void gate.givePermit());
  wait();
  giveAll();
  t.equal(asked, 0, 'only if it may ask');
  watch.letAsk(2);
  wait();
  gates[0]?.givePermit();
  t.equal(asked, 0, 'the other one reads');
  gates[1]?.givePermit();
  t.equal(asked, 1);
  wait();
  giveAll();
  t.equal(asked, 1, 'once');
  watch.letAsk(2);
  wait();
  giveAll();
  t.equal(asked, 2, 'and again when it may');
  t.end();
});

t.test('awaitUnused waits for a thread in the middle of a request, not for one that reads', async (t) => {
  const memory = createThreadMemory(2);
  const [busy, idle] = [new ThreadGate(memory, 0), new ThreadGate(memory, 1)];
  const watch = new ThreadWatch(memory, 2);
  t.equal(idle.enter(NODE), false, 'no messages');
  idle.leave();
  t.equal(busy.enter(NODE), false);
  let isPassed = false;
  const passed = watch.awaitUnused(watch.announce(), NODE).then(() => {
    isPassed = true;
  });
  await delay(30);
  t.equal(isPassed, false);
  busy.leave();
  await passed;
  t.equal(busy.enter(NODE), true, 'the next request finds the messages');
  busy.seen();
  t.equal(busy.enter(NODE), false, 'once');
});

t.test(
  'awaitUnused does not wait for a thread that has taken the messages, even in the middle of a request',
  async (t) => {
    const memory = createThreadMemory(1);
    const gate = new ThreadGate(memory, 0);
    const watch = new ThreadWatch(memory, 1);
    const version = watch.announce();
    t.equal(gate.enter(NODE), true);
    gate.seen();
    await watch.awaitUnused(version, NODE);
    t.pass();
  },
);

t.test('awaitUnused waits for threads that use the window, and for no others', async (t) => {
  const memory = createThreadMemory(2);
  const [hung, other] = [new ThreadGate(memory, 0), new ThreadGate(memory, 1)];
  const watch = new ThreadWatch(memory, 2);
  hung.enter(NODE);
  other.enter(NODE + 1);
  other.leave();
  await watch.awaitUnused(watch.announce(), NODE + 1);
  t.pass('one that serves another vbd for ever is not waited for');
});

t.test('a read that was put off uses its window, whatever messages its thread has taken', async (t) => {
  const memory = createThreadMemory(1);
  const gate = new ThreadGate(memory, 0);
  const watch = new ThreadWatch(memory, 1);
  gate.enter(NODE);
  const places = [gate.putOff(NODE), gate.putOff(NODE + 1)];
  gate.enter(NODE + 2);
  const version = watch.announce();
  gate.enter(NODE + 2);
  gate.seen();
  await watch.awaitUnused(version, NODE + 2);
  let isPassed = false;
  const passed = watch.awaitUnused(version, NODE).then(() => {
    isPassed = true;
  });
  gate.finished(places[1] as number);
  await watch.awaitUnused(version, NODE + 1);
  await delay(20);
  t.equal(isPassed, false);
  gate.finished(places[0] as number);
  await passed;
});

t.test('versions go on after 2^31', async (t) => {
  const memory = createThreadMemory(1);
  const gate = new ThreadGate(memory, 0);
  const watch = new ThreadWatch(memory, 1);
  // as if so many messages had been sent
  new Int32Array(memory)[0] = 2 ** 31 - 3;
  gate.enter(NODE);
  gate.seen();
  for (let i = 0; i < 6; i++) {
    const version = watch.announce();
    let isPassed = false;
    const passed = watch.awaitUnused(version, NODE).then(() => {
      isPassed = true;
    });
    await delay(3);
    t.equal(isPassed, false, 'waits');
    t.equal(gate.enter(NODE), true);
    gate.seen();
    await passed;
  }
});
