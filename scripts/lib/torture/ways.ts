/** The ways that a disk is served in: each driver by threads, and passed through where the kernel can do that. */
export const WAYS = [
  { driver: 'aio', passthrough: 'off' },
  { driver: 'sync', passthrough: 'off' },
  { driver: 'ram', passthrough: 'off' },
  { driver: 'ram', passthrough: 'on' },
  { driver: 'aio', passthrough: 'on' },
] as const;
