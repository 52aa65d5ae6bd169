/** The size of a memory page on x86-64, and on arm64 in common distributions. */
export const PAGE_BYTES = 4096;
