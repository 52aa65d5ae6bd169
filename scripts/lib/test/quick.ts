/**
 * The quick part of the tests: what depends on the version of Node (FFI, threads, processes, sockets, files), and one
 * end-to-end test. It takes less than two minutes on two cores, so every tested version of Node can run it.
 */

const QUICK = [
  /^test\/system\//,
  // formats only compute, and read and write through these drivers; so do the files below drivers/ and in slots/. But newer
  // versions of Node have zstd
  /^test\/drivers\/(?!concat|join|new-blocks|qcow2|split|tar|vdi|vhd|vmdk)[^/]+$/,
  /^test\/drivers\/qcow2\/compressed\.test\.ts$/,
  /^test\/mount\/(?!slots\/)/,
  /^test\/cli\/(commands|mount-helper|output|run-command)\.test\.ts$/,
  /^test\/e2e\/each-node\.test\.ts$/,
];

/** @param name the source of a test file, for example `test/drivers/ram.test.ts` */
export function isQuick(name: string): boolean {
  return QUICK.some((pattern) => pattern.test(name));
}
