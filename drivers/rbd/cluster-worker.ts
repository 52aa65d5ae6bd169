/** The thread in which calls to a cluster wait: it does one after the other. */
import { parentPort } from 'node:worker_threads';
import { loadLibrbd } from '../../system/librbd.js';
import type { ClusterAnswer, ClusterRequest } from './cluster.js';
import { ClusterError, clusterCalls } from './cluster-calls.js';

const calls = clusterCalls(loadLibrbd());

parentPort?.on('message', ({ number, call, argument }: ClusterRequest) => {
  parentPort?.postMessage(answer(number, () => (calls[call] as (argument: unknown) => unknown)(argument)));
});

function answer(number: number, work: () => unknown): ClusterAnswer {
  try {
    return { number, result: work() };
  } catch (error) {
    if (error instanceof ClusterError) return { number, failed: { step: error.step, errno: error.errno } };
    return { number, broken: String(error) };
  }
}
