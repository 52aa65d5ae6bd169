import { withoutExtraCertificates } from '../../system/extra-certificates.js';

/**
 * Node options of keepers and servers. None of them is an option of V8, which would make the start longer: see system/young-heap.ts.
 */
export const BUS_NODE_OPTIONS: readonly string[] = [
  // for Node 22.14 and later, before any code is loaded; Node 20 needs own-process.ts
  ...['--disable-sigusr1'].filter((option) => process.allowedNodeEnvironmentFlags.has(option)),
];

/**
 * The size from which memcpy(3) of glibc on x86 bypasses the processor's cache. The default is three quarters of the
 * cache. But bytes written to an image (fuse/thread/mapped-write.ts) are seldom read at once, and filling the cache
 * with them takes more time than the copy. Other C libraries ignore this setting.
 */
const PAST_CACHE_BYTES = 32 << 10;

/**
 * How many asynchronous file calls may run at a time. The default is four: then four hanging file systems would stop
 * the whole keeper.
 */
const KEEPER_CALLS = '16';

/** The environment of a keeper. Node reads it when it starts. */
export function keeperEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...withoutExtraCertificates(env), UV_THREADPOOL_SIZE: env.UV_THREADPOOL_SIZE ?? KEEPER_CALLS };
}

/**
 * The environment of a server, made from its keeper's. A server keeps Node's default of four calls: with sixteen,
 * requests on the event loop take one and a half times the processor time.
 */
export function serverEnvironment({ UV_THREADPOOL_SIZE: calls, ...env }: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = `glibc.cpu.x86_non_temporal_threshold=${PAST_CACHE_BYTES}`;
  const { GLIBC_TUNABLES: given } = env;
  const isUsers = calls !== undefined && calls !== KEEPER_CALLS;
  return {
    ...env,
    ...(isUsers && { UV_THREADPOOL_SIZE: calls }),
    // if the user has set it too, the last value is used
    GLIBC_TUNABLES: given === undefined ? own : `${own}:${given}`,
  };
}
