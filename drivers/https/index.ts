/** https: an image on a web server, which is only read. "Disks on a network" in docs/architecture.md has the design. */
import { closeAll } from '../close-fd.js';
import type { Driver, Json, Kept } from '../driver.js';
import { FusetapError } from '../errors.js';
import { type FileFacts, MOST_BYTES } from './answer.js';
import { BlockCache } from './block-cache.js';
import { webDisk } from './disk.js';
import { parseOptions } from './options.js';
import { WebFile } from './web-file.js';

const https = {
  name: 'https',
  roles: {},
  isRemote: true,
  onlyReads: true,
  check(options) {
    parseOptions(options);
  },
  async claims(options) {
    return parseOptions(options).url;
  },
  async open({ options, readOnly, kept = null, host }) {
    const parsed = parseOptions(options);
    if (!readOnly) {
      throw new FusetapError('DENIED', 'a file on a web server cannot be written', {
        hint: 'attach it with mode r, or with --snapshot: then writes go to memory',
      });
    }
    const earlier = kept === null ? null : earlierOf(kept);
    const file = await WebFile.open(parsed, earlier?.facts ?? null, (state) => host?.told(state));
    const ownFd = earlier === null ? BlockCache.create(parsed.cacheBytes) : null;
    const close = async (): Promise<void> => {
      if (ownFd !== null) await closeAll([ownFd]);
    };
    try {
      const facts = await file.probe();
      const cache = new BlockCache(earlier?.fd ?? (ownFd as number), parsed.cacheBytes);
      if (earlier === null) await host?.keep({ ...facts }, [cache.fd]);
      return webDisk({ file, facts, cache }, close);
    } catch (error) {
      await file.close();
      await close();
      throw error;
    }
  },
} satisfies Driver;

/** What an earlier server has kept: what the file is, and the memory of its cache. */
function earlierOf({ facts, fds: [fd] }: Kept): { readonly facts: FileFacts; readonly fd: number } {
  if (fd !== undefined && areFacts(facts)) return { facts, fd };
  throw new FusetapError('FAILED', 'what an earlier server has kept is damaged');
}

function areFacts(value: Json): value is FileFacts & Json {
  const { size, etag, lastModified } = (value ?? {}) as Partial<FileFacts>;
  const isText = (each: unknown): boolean => each === null || typeof each === 'string';
  return Number.isSafeInteger(size) && (size as number) <= MOST_BYTES && isText(etag) && isText(lastModified);
}

export default https;
