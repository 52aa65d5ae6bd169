/**
 * The decoded parts of an image (clusters, grains) that were used last. A guest reads such a part in many small requests:
 * without the cache, each of them would decode all of it.
 */
import { Lanes } from '../../system/lanes.js';

const MOST_BYTES = 8 << 20;
/** a buffer takes more memory than its bytes, which counts for small parts */
const MOST_PARTS = 1024;
/**
 * Streams that are read and decoded at the same time. They take up to 6 MiB each, and the libuv pool of a server has
 * only 4 threads.
 */
const MOST_AT_ONCE = 4;

export interface DecodedCacheOptions<Stream> {
  /** the most bytes of a decoded part: at most 2 MiB */
  readonly unitBytes: number;
  /** how many caches share the memory that one may take; default: 1 */
  readonly shares?: number;
  /** Reads and decodes a stream. Few calls run at the same time. */
  decode(stream: Stream): Promise<Buffer>;
}

export class DecodedCache<Stream> {
  readonly #decode: (stream: Stream) => Promise<Buffer>;
  readonly #most: number;
  /** by the key of the stream; the first one was used longest ago */
  readonly #decoded = new Map<number, Buffer>();
  readonly #decoding = new Map<number, Promise<Buffer>>();
  readonly #lanes = new Lanes(MOST_AT_ONCE);

  constructor({ unitBytes, shares = 1, decode }: DecodedCacheOptions<Stream>) {
    this.#decode = decode;
    this.#most = Math.max(1, Math.floor(Math.min(MOST_PARTS, MOST_BYTES / unitBytes) / shares));
  }

  /**
   * The decoded bytes of a stream, which the caller must not change. Calls for one stream at the same time decode it once.
   * @param key of the stream: another one for each, for example its place in the image
   * @throws errors of `decode`. The next call tries again
   */
  async read(key: number, stream: Stream): Promise<Buffer> {
    const known = this.#decoded.get(key);
    if (known === undefined) return await (this.#decoding.get(key) ?? this.#start(key, stream));
    this.#keep(key, known);
    return known;
  }

  /**
   * Forgets a stream. Must be called before other bytes are written to its place; a call of `read` that is under way may
   * still return the old ones.
   */
  forget(key: number): void {
    this.#decoded.delete(key);
    this.#decoding.delete(key);
  }

  #start(key: number, stream: Stream): Promise<Buffer> {
    const decoding = this.#lanes.run(() => this.#decode(stream));
    this.#decoding.set(key, decoding);
    const end = (bytes: Buffer | null): void => {
      if (this.#decoding.get(key) !== decoding) return; // forgotten meanwhile
      this.#decoding.delete(key);
      if (bytes !== null) this.#keep(key, bytes);
    };
    decoding.then(end, () => end(null));
    return decoding;
  }

  #keep(key: number, bytes: Buffer): void {
    this.#decoded.delete(key);
    this.#decoded.set(key, bytes);
    if (this.#decoded.size <= this.#most) return;
    const [oldest] = this.#decoded.keys();
    if (oldest !== undefined) this.#decoded.delete(oldest);
  }
}
