/** The ways to serve a disk: each driver by threads, and with passthrough if the kernel can do that. */
export const WAYS = [
  { driver: 'aio', passthrough: 'off' },
  { driver: 'sync', passthrough: 'off' },
  { driver: 'ram', passthrough: 'off' },
  { driver: 'ram', passthrough: 'on' },
  { driver: 'aio', passthrough: 'on' },
] as const;
