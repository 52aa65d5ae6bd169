/**
 * A driver of two layers: an overlay over a base that it opens itself. The base is open for reading, except during a commit.
 * So a commit is done as a bus does it: the disk is opened again over the writable base, and afterwards as before.
 */
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { Driver, OpenContext, RawDisk } from '../../../drivers/driver.js';
import { FusetapError } from '../../../drivers/errors.js';
import { gated } from '../../../drivers/filters/gated.js';
import { UnderWay } from '../../../drivers/map/under-way.js';
import { readHeader } from '../../../drivers/qcow2/format/header.js';
import qcow2 from '../../../drivers/qcow2/index.js';
import { asRaw } from '../../../drivers/segments/join-disks.js';
import { Life } from '../life.js';
import type { SparseBytes } from '../sparse-bytes.js';

type Format = 'raw' | 'qcow2';

/** @param lowest what a qcow2 base is over */
export function committing(format: Format, lowest: SparseBytes | null): Driver {
  return {
    name: 'overlay',
    roles: {
      file: { takes: 'disk', access: 'as-parent' },
      base: { takes: 'disk', access: 'as-parent' },
    },
    // the base is not written by an attach
    repair: (context) => qcow2.repair({ ...context, disks: { file: context.disks.file as Disk } }),
    async open(context) {
      const { size } = await readHeader(context.disks.file as Disk);
      const layers = new Layers(context, format, lowest);
      const reading = {
        size,
        read: (buffer: Uint8Array, offset: number) =>
          layers.use(async ({ top }) => void (await top.read(buffer, offset))),
        extents: (offset: number, length: number) => layers.use(({ top }) => top.extents(offset, length)),
        activate: () => layers.open('r'),
        close: () => layers.close(),
      } satisfies RawDisk;
      if (context.readOnly) return reading;
      return {
        ...reading,
        write: (buffer, offset, options) =>
          layers.use(async ({ top }) => void (await top.write(buffer, offset, options))),
        zero: (offset, length, options) => layers.use(({ top }) => top.zero(offset, length, options)),
        flush: () => layers.use(({ top }) => top.flush()),
        commit: (commit) => layers.commit(commit),
      };
    },
  };
}

interface Open {
  readonly top: Disk;
  readonly base: Disk;
}

class Layers {
  readonly #context: OpenContext;
  readonly #format: Format;
  readonly #lowest: Disk | null;
  readonly #requests = new UnderWay();
  #open: Promise<Open> | null = null;

  constructor(context: OpenContext, format: Format, lowest: SparseBytes | null) {
    this.#context = context;
    this.#format = format;
    this.#lowest = lowest === null ? null : new Life({ files: { lowest } }).disk('lowest', { readOnly: true });
  }

  async open(mode: 'r' | 'w'): Promise<void> {
    this.#open = this.#openBoth(mode);
    await this.#open;
  }

  /** Serves a request; during an exchange of the layers it waits. */
  async use<Result>(request: (open: Open) => Promise<Result>): Promise<Result> {
    const open = await (this.#open as Promise<Open>);
    return await this.#requests.run(() => request(open));
  }

  async commit(context: Parameters<Disk['commit']>[0]): Promise<void> {
    try {
      await this.#exchange('w');
      await this.use(({ top }) => top.commit(context));
    } finally {
      await this.#exchange('r');
    }
  }

  async close(): Promise<void> {
    const open = await this.#open;
    if (open !== null) await closeBoth(open);
  }

  /** As a server does it: paused, flushed, opened, exchanged, closed. The new layers are activated by the next request. */
  async #exchange(mode: 'r' | 'w'): Promise<void> {
    const old = await (this.#open as Promise<Open>);
    let resume = (_: Open): void => {};
    this.#open = new Promise((resolve) => (resume = resolve));
    // requests that have got the old layers have begun, or begin now
    await Promise.resolve();
    await this.#requests.settled();
    try {
      await old.top.flush();
      const fresh = await this.#openBoth(mode);
      await closeBoth(old).catch(onlyExpected);
      resume(fresh);
    } catch (error) {
      resume(old);
      throw error;
    }
  }

  async #openBoth(mode: 'r' | 'w'): Promise<Open> {
    const { file, base: below } = this.#context.disks as { file: Disk; base: Disk };
    await Promise.all([file.growth?.measure(), below.growth?.measure()]);
    const { signal } = new AbortController();
    const given = { files: {}, disks: { file: below }, options: {} };
    if (mode === 'w' && this.#format === 'qcow2') {
      await qcow2.repair({ ...given, path: '/base', signal, progress: () => {} });
    }
    const base = await this.#openBase(below, mode === 'r');
    const context = { ...this.#context, disks: { file, backing: base } };
    const top = frontDisk(gated(await qcow2.open(context)), { readOnly: context.readOnly });
    return { top, base };
  }

  async #openBase(below: Disk, readOnly: boolean): Promise<Disk> {
    if (this.#format === 'raw') return frontDisk(kept(below), { readOnly });
    const given = { files: {}, memory: null, state: null, options: {} };
    const backing = this.#lowest === null ? {} : { backing: this.#lowest };
    const context = { ...given, readOnly, isRepaired: !readOnly, disks: { file: below, ...backing } };
    return frontDisk(gated(await qcow2.open(context)), { readOnly });
  }
}

/** A disk that stays open when it is closed. */
function kept(disk: Disk): RawDisk {
  return {
    ...asRaw(disk),
    ...(disk.growth && { growth: disk.growth }),
    get size() {
      return disk.size;
    },
  };
}

async function closeBoth({ top, base }: Open): Promise<void> {
  await top.close();
  await base.close();
}

/** An error of a close is logged: all was flushed before. */
function onlyExpected(error: unknown): void {
  if (!(error instanceof FusetapError)) throw error;
}
