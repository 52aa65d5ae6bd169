/** The memory in which threads hand requests on: a place belongs to one at a time, and threads always have one. */
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { MOST_THREADS } from '../../../../mount/fuse/protocol/thread-counts.js';
import { createRequestMemory, REQUEST_START, RequestPlaces } from '../../../../mount/fuse/thread/request-memory.js';
import { addressOf } from '../../../../system/libc.js';
import type { PlacesTask } from './request-memory-worker.js';

const MOST_HANDED_ON = 32;
const MOST_LOST = 64;

t.test('however many are handed on, each thread gets a place', async (t) => {
  const places = new RequestPlaces(createRequestMemory());
  const handedOn = [];
  for (let place = places.takeAnother(); place !== null; place = places.takeAnother()) handedOn.push(place.number);
  t.equal(handedOn.length, MOST_HANDED_ON);
  const ofThreads = Array.from({ length: MOST_THREADS }, (_, thread) => places.first(thread).number);
  t.equal(new Set([...handedOn, ...ofThreads]).size, MOST_HANDED_ON + MOST_THREADS, 'each is another one');
  t.equal(places.first(3).number, ofThreads[3], 'a thread that could not be loaded begins there again');
  t.equal(places.takeAnother(), null);
  places.give(handedOn[5] as number);
  t.equal(places.takeAnother()?.number, handedOn[5], 'what was given back is taken again');
});

t.test('places that are lost', async (t) => {
  const places = new RequestPlaces(createRequestMemory());
  const taken = new Set<number>();
  for (let i = 0; i < MOST_LOST; i++) {
    taken.add(places.takeAnother()?.number as number);
    places.lose();
  }
  t.equal(taken.size, MOST_LOST, 'none is taken again');
  const others = Array.from({ length: MOST_HANDED_ON }, () => places.takeAnother()?.number as number);
  t.notOk(others.some((number) => taken.has(number)));
  for (const number of others) places.give(number);
  for (let i = 0; i < MOST_HANDED_ON; i++) {
    places.takeAnother();
    places.lose();
  }
  t.equal(places.takeAnother(), null, 'then there is none, and nothing fails');
});

t.test('who serves a request may give its bytes to functions that refuse shared memory', async (t) => {
  const { bytes } = new RequestPlaces(createRequestMemory()).at(40);
  bytes.write('data');
  t.ok(bytes.buffer instanceof ArrayBuffer);
  t.equal(await new Response(bytes.subarray(0, 4)).text(), 'data');
  t.equal((await crypto.subtle.digest('SHA-256', bytes)).byteLength, 32);
});

t.test('a place begins at a page, and both sides see the same bytes', async (t) => {
  const memory = createRequestMemory();
  const [thread, main] = [new RequestPlaces(memory), new RequestPlaces(memory)];
  for (let i = 0; i < 3; i++) {
    const place = thread.first(i);
    t.equal(place.address % 4096, 0);
    t.equal(place.address, addressOf(place.bytes));
    t.equal(addressOf(place.request.bytes), place.address + REQUEST_START);
    place.request.bytes.write(`request ${i}`);
    t.equal(main.at(place.number).request.bytes.toString('latin1', 0, 9), `request ${i}`);
  }
});

t.test('threads that take places at the same time', async (t) => {
  const workerData: PlacesTask = {
    ...{ memory: createRequestMemory(), users: new SharedArrayBuffer(4 * (MOST_HANDED_ON + MOST_LOST + MOST_THREADS)) },
    rounds: 20_000,
  };
  const workers = Array.from(
    { length: 4 },
    () => new Worker(new URL('./request-memory-worker.js', import.meta.url), { workerData }),
  );
  const ended = workers.map(
    (worker) =>
      new Promise<string>((resolve) => {
        worker.once('error', (error) => resolve(error.message)).once('exit', () => resolve('ok'));
      }),
  );
  t.same(await Promise.all(ended), ['ok', 'ok', 'ok', 'ok']);
  t.same([...new Int32Array(workerData.users)].filter(Boolean), []);
});
