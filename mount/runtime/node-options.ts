/**
 * How keepers and servers run: with small heaps, because their memory is the price of every bus. Left alone, a keeper's
 * heap doubles within a few hundred requests, most of it garbage.
 */
export const BUS_NODE_OPTIONS: readonly string[] = [
  '--max-semi-space-size=1',
  // see own-process.ts, which Node 20 needs; later ones (22.14) are told so before any code is loaded
  ...['--disable-sigusr1'].filter((option) => process.allowedNodeEnvironmentFlags.has(option)),
];

/**
 * From how many bytes on memcpy(3) of glibc on x86 writes past the processor's cache. Left alone that is three quarters of
 * the cache; but what is written to an image (fuse/thread/mapped-write.ts) is seldom read at once, and to bring it into the cache
 * takes more time than the copy. Other C libraries do not look at it.
 */
const PAST_CACHE_BYTES = 32 << 10;

/**
 * How many asynchronous calls on files may be under way at a time. Left alone there are four: as many file systems that hang
 * would stop all that a keeper does.
 */
const KEEPER_CALLS = '16';

/** The environment of a keeper. Node reads it when it starts. */
export function keeperEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, UV_THREADPOOL_SIZE: env.UV_THREADPOOL_SIZE ?? KEEPER_CALLS };
}

/**
 * The environment of a server, made from its keeper's. A server keeps to Node's four calls at a time: with sixteen, requests
 * on the event loop take half as much processor time again.
 */
export function serverEnvironment({ UV_THREADPOOL_SIZE: calls, ...env }: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = `glibc.cpu.x86_non_temporal_threshold=${PAST_CACHE_BYTES}`;
  const { GLIBC_TUNABLES: given } = env;
  const isUsers = calls !== undefined && calls !== KEEPER_CALLS;
  return {
    ...env,
    ...(isUsers && { UV_THREADPOOL_SIZE: calls }),
    // where the user has set it himself, the last one counts
    GLIBC_TUNABLES: given === undefined ? own : `${own}:${given}`,
  };
}
