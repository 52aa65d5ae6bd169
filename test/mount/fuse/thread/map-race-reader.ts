/** A thread of map-race.test.ts: reads random granules as thread.ts does, and reports a granule that is not itself. */
import { parentPort, workerData } from 'node:worker_threads';
import { ASK, MapLook, type MapTable } from '../../../../drivers/map/table.js';
import { ThreadGate, type ThreadMemory } from '../../../../mount/fuse/thread/thread-control.js';
import { addressOf, pread } from '../../../../system/libc.js';

export interface RaceData {
  readonly memory: ThreadMemory;
  readonly thread: number;
  readonly table: MapTable;
  /** by the numbers in the table */
  readonly fds: readonly number[];
  readonly nodeId: number;
  readonly granules: number;
  readonly granuleBytes: number;
  /** 0: go on; 1: end */
  readonly end: Int32Array;
}

export interface RaceResult {
  readonly reads: number;
  readonly asks: number;
  readonly putOff: number;
  readonly wrong: string | null;
}

const { memory, thread, table, fds, nodeId, granules, granuleBytes, end } = workerData as RaceData;
const gate = new ThreadGate(memory, thread);
const look = new MapLook(table);
const bytes = Buffer.alloc(granuleBytes);
const address = addressOf(bytes);
const result = { reads: 0, asks: 0, putOff: 0, wrong: null as string | null };

/** All words of a granule are its number. */
function check(granule: number, file: number, place: number): void {
  if (pread(fds[file] as number, address, granuleBytes, place) !== granuleBytes) throw new Error('a short read');
  for (let at = 0; at < granuleBytes; at += 4) {
    if (bytes.readUInt32LE(at) !== granule) result.wrong ??= `granule ${granule} reads as ${bytes.readUInt32LE(at)}`;
  }
}

parentPort?.postMessage('ready');
// a thread that got no time has checked nothing yet
while (Atomics.load(end, 0) === 0 || result.reads === 0) {
  const granule = Math.floor(Math.random() * granules);
  gate.enter(nodeId);
  if (look.run(granule * granuleBytes, granuleBytes) === ASK) {
    result.asks++;
  } else if (Math.random() < 0.1) {
    // the read is put off: the thread serves another node meanwhile
    const { file, place } = look;
    const putOff = gate.putOff(nodeId);
    gate.enter(nodeId + 1);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    gate.waitsFor(putOff);
    check(granule, file, place);
    gate.finished(putOff);
    result.putOff++;
  } else {
    check(granule, look.file, look.place);
    result.reads++;
  }
  gate.leave();
}
parentPort?.postMessage(result satisfies RaceResult);
