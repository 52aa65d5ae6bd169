/** The keys of a request that tell its disk, as the control interface takes them. */
import type { DiskWish } from './interface.js';

/** What a request tells about its disk in JSON: a tree alone, or a driver with its image. */
export type SentDisk<Request extends DiskWish> = Omit<Request, 'driver' | 'image' | 'options' | 'disk'> & {
  driver?: string;
  image?: string | null;
  options?: Record<string, string>;
  disk?: Record<string, unknown>;
};

/** The body of a request: a tree goes without the driver and the image that it has anyway. */
export function sentDisk<Request extends DiskWish>(request: Request): SentDisk<Request> {
  const { driver, image, options, disk, ...others } = request;
  return disk === undefined ? { ...others, driver, image, options } : { ...others, disk: { ...disk } };
}
