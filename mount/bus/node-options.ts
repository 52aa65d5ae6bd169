/**
 * How keepers and servers run: with small heaps, because their memory is the price of every bus. Left alone, a keeper's
 * heap doubles within a few hundred requests, most of it garbage.
 */
export const BUS_NODE_OPTIONS: readonly string[] = ['--max-semi-space-size=1'];
