/**
 * The short form of a driver that has one image, or none, which third-party drivers may use. It is the form that all
 * drivers had before disks were made of disks.
 */
import type { Driver, ImageFile, Json, MeasureContext, OpenContext, PrepareContext, RawDisk } from './driver.js';
import { ONE_FILE } from './image.js';

/** In place of `files` and `disks`: the image; null for a driver without one. */
export type WithImage<Context> = Omit<Context, 'files' | 'disks' | 'mayFill'> & { readonly image: ImageFile | null };

export interface ImageDriver<State extends Json = Json> {
  readonly name: string;
  /** whether the driver needs an image file; with `none` it is given null and takes its source from the options */
  readonly image: 'required' | 'none';
  readonly roles?: undefined;
  /** see Driver */
  readonly rawImage?: boolean;
  /** all vbds of the same image share one memory: see `scratch` of Driver */
  readonly sharesMemory?: boolean;
  /** see Driver */
  measure?(context: WithImage<MeasureContext>): Promise<number>;
  /** see Driver */
  prepare?(context: WithImage<PrepareContext>): Promise<State>;
  /** see Driver */
  open(context: WithImage<OpenContext<State>>): Promise<RawDisk>;
}

/** A driver in either form. */
export type AnyDriver<State extends Json = Json> =
  | (Driver<State> & { readonly image?: undefined })
  | ImageDriver<State>;

/** A driver in the long form. */
export function asDriver(driver: AnyDriver): Driver {
  if (driver.roles !== undefined) return driver;
  const { name, image, sharesMemory = false, rawImage = false } = driver;
  const file = { takes: 'file', access: 'read' } as const;
  // call the methods on the driver, so that `this` is the driver
  return {
    name,
    roles: image === 'none' ? {} : sharesMemory ? { file } : ONE_FILE,
    rawImage,
    ...(sharesMemory && { scratch: 'shared' }),
    ...(driver.measure && { measure: async (context) => (await driver.measure?.(withImage(context))) ?? 0 }),
    ...(driver.prepare && { prepare: async (context) => (await driver.prepare?.(withImage(context))) ?? null }),
    open: (context) => driver.open(withImage(context)),
  };
}

function withImage<Context extends { readonly files: Readonly<Record<string, ImageFile>> }>(
  context: Context,
): WithImage<Context> {
  return { ...context, image: context.files.file ?? null };
}
