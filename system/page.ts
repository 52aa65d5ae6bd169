/** The size of a memory page on x86-64, and on arm64 in common distributions. */
export const PAGE_BYTES = 4096;

/** How many bytes from an address to the begin of a page: 0 if it is one. */
export function bytesToPage(address: number): number {
  return (PAGE_BYTES - (address % PAGE_BYTES)) % PAGE_BYTES;
}
