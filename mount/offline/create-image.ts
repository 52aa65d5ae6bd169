/**
 * Makes an image, perhaps over a backing file. The image is complete and durable when it gets its name, and a file that
 * exists is replaced only with `force`.
 */
import { fsync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { NewImage } from '../../drivers/creating/creator.js';
import { type CreatorFacts, createdFormats, creatorOf } from '../../drivers/creating/formats.js';
import { errnoOf, FusetapError } from '../../drivers/errors.js';
import { named, quoted } from '../../drivers/quote.js';
import { E } from '../../system/libc.js';
import { followOutside } from '../images/open-image.js';
import { placeFile } from '../images/place-file.js';
import { NO_BUS } from '../open-disk.js';
import { type OpenedBacking, openBacking, type WantedBacking } from './backing-file.js';
import { describeUser } from './describe-user.js';

const fsyncAsync = promisify(fsync);

export interface CreateRequest {
  /** absolute */
  readonly path: string;
  /** as QEMU calls it */
  readonly format: string;
  /** of the disk, in bytes; null: that of the backing file */
  readonly size: number | null;
  readonly backing: WantedBacking | null;
  readonly options: Readonly<Record<string, string>>;
  readonly force: boolean;
}

export interface CreatedImage {
  readonly image: string;
  readonly format: string;
  readonly size: number;
}

/** @throws FusetapError USAGE, BUSY, NOT_FOUND, DENIED, NO_SPACE, UNSUPPORTED; nothing is left then */
export async function createImage(request: CreateRequest): Promise<CreatedImage> {
  const { path, format, force } = request;
  const facts = factsOf(request);
  const { default: creator } = await facts.load();
  const there = join(await directoryOf(path), basename(path));
  const wanted = request.backing === null ? null : stated(request.backing, facts);
  const backing = wanted === null ? null : await openBacking(wanted, path, there);
  try {
    if (backing !== null) checkBelow(facts, format, backing);
    const image = newImage(request, backing);
    const size = creator.check(image);
    const target = await placeFile(path, there, {
      ...{
        ownBus: NO_BUS,
        describePid: describeUser,
        force,
        what: 'a new image',
        cannot: 'cannot make the image',
        operation: 'create',
      },
      mode: 0o666 & ~process.umask(),
      fill: async (fd) => {
        await creator.write(fd, image).catch(sayWhich(path));
        await fsyncAsync(fd);
      },
    });
    return { image: target, format, size };
  } finally {
    await backing?.close();
  }
}

/** A handler for a failed write, whose error does not name the file. */
function sayWhich(path: string): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof FusetapError) || error.path !== undefined) throw error;
    const { code, message, hint, errno, operation, offset } = error;
    throw new FusetapError(code, `cannot make the image ${named(path)}: ${message}`, {
      ...{ hint, errno, operation, offset, path, cause: error },
    });
  };
}

const withBacking = createdFormats.filter((format) => creatorOf(format)?.backingFormats.length);

function factsOf({ format, backing }: CreateRequest): CreatorFacts {
  const facts = creatorOf(format);
  if (facts === undefined) {
    throw new FusetapError('UNSUPPORTED', `images of the format ${quoted(format)} cannot be made`, {
      hint: `the formats are ${createdFormats.join(', ')}; others: qemu-img create`,
    });
  }
  if (backing === null || facts.backingFormats.length > 0) return facts;
  throw new FusetapError('USAGE', `a ${format} image has no backing file`, {
    hint: `the formats that have one are ${withBacking.join(', ')}`,
  });
}

/** @throws FusetapError USAGE for a backing file of a format that images of this one cannot be over */
function checkBelow({ backingFormats }: CreatorFacts, format: string, backing: OpenedBacking): void {
  if (backingFormats.includes(backing.format)) return;
  throw new FusetapError('USAGE', `a ${format} image cannot be over a ${backing.format} image`, {
    hint: `it can be over ${backingFormats.join(' or ')}`,
  });
}

/** A format that can be over one other format only says what its backing file is. */
function stated(backing: WantedBacking, { backingFormats }: CreatorFacts): WantedBacking {
  const [only, ...others] = backingFormats;
  return only === undefined || others.length > 0 ? backing : { ...backing, format: backing.format ?? only };
}

/** The directory of a new file, without symbolic links. */
async function directoryOf(path: string): Promise<string> {
  try {
    const directory = await followOutside(dirname(path), NO_BUS);
    await stat(directory);
    return directory;
  } catch (error) {
    if (errnoOf(error) !== E.ENOENT) throw error;
    throw new FusetapError('NOT_FOUND', `cannot make the image ${quoted(path)}: ENOENT`, {
      hint: 'make its directory first',
      path,
    });
  }
}

function newImage({ path, size, options }: CreateRequest, backing: OpenedBacking | null): NewImage {
  const wanted = size ?? backing?.size;
  if (wanted === undefined) {
    throw new FusetapError('USAGE', "missing required argument 'SIZE'", {
      hint: 'give the size of the disk, or a --backing file that has one',
    });
  }
  if (wanted === null) {
    throw new FusetapError('USAGE', 'the size of the disk in the backing file is not known', { hint: 'give SIZE' });
  }
  const image = { name: basename(path), size: wanted, options };
  if (backing === null) return { ...image, backing: null };
  const { name, format, identity } = backing;
  return { ...image, backing: { name, format, identity } };
}
