/** The size of a page of memory: of x86-64, and of arm64 as distributions build it. */
export const PAGE_BYTES = 4096;
