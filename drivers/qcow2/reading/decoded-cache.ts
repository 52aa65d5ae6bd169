/**
 * The decoded clusters of a qcow2 image that were used last. A guest reads a cluster in many small requests: without the
 * cache, each of them would decode all of it.
 */
import type { Disk } from '../../disk.js';
import { readUpTo } from '../../formats/read.js';
import type { ClusterEntry } from '../format/entries.js';
import { type Codec, decodeCluster } from './compressed.js';

const MOST_BYTES = 8 << 20;
/** a buffer takes more memory than its bytes, which counts for small clusters */
const MOST_CLUSTERS = 1024;
/**
 * Streams that are read and decoded at the same time. They take up to 6 MiB each, and the libuv pool of a server has
 * only 4 threads.
 */
const MOST_AT_ONCE = 4;

export type Stream = Pick<ClusterEntry, 'place' | 'streamBytes'>;

export class DecodedCache {
  readonly #image: Disk;
  readonly #codec: Codec;
  readonly #mostClusters: number;
  /** by the place of the stream; the first one was used longest ago */
  readonly #decoded = new Map<number, Buffer>();
  readonly #decoding = new Map<number, Promise<Buffer>>();
  #atOnce = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(image: Disk, codec: Codec) {
    this.#image = image;
    this.#codec = codec;
    this.#mostClusters = Math.min(MOST_CLUSTERS, Math.floor(MOST_BYTES / codec.clusterBytes));
  }

  /**
   * The decoded cluster of a stream. Calls for one stream at the same time decode it once.
   * @returns `clusterBytes` bytes, which the caller must not change
   * @throws FusetapError FAILED, errno EIO, if the stream is damaged; errors of the image. The next call tries again
   */
  async read(stream: Stream): Promise<Buffer> {
    const known = this.#decoded.get(stream.place);
    if (known === undefined) return await (this.#decoding.get(stream.place) ?? this.#start(stream));
    this.#keep(stream.place, known);
    return known;
  }

  /**
   * Forgets the cluster of a stream. Must be called before other bytes are written to its place; a call of `read` that is
   * under way may still return the old ones.
   */
  forget(place: number): void {
    this.#decoded.delete(place);
    this.#decoding.delete(place);
  }

  #start(stream: Stream): Promise<Buffer> {
    const decoding = this.#inTurn(() => this.#decode(stream));
    this.#decoding.set(stream.place, decoding);
    const end = (cluster: Buffer | null): void => {
      if (this.#decoding.get(stream.place) !== decoding) return; // forgotten meanwhile
      this.#decoding.delete(stream.place);
      if (cluster !== null) this.#keep(stream.place, cluster);
    };
    decoding.then(end, () => end(null));
    return decoding;
  }

  async #decode({ place, streamBytes }: Stream): Promise<Buffer> {
    return await decodeCluster(await readUpTo(this.#image, place, streamBytes), this.#codec, place);
  }

  #keep(place: number, cluster: Buffer): void {
    this.#decoded.delete(place);
    this.#decoded.set(place, cluster);
    if (this.#decoded.size <= this.#mostClusters) return;
    const [oldest] = this.#decoded.keys();
    if (oldest !== undefined) this.#decoded.delete(oldest);
  }

  async #inTurn(work: () => Promise<Buffer>): Promise<Buffer> {
    if (this.#atOnce === MOST_AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#atOnce += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#atOnce -= 1;
      else next();
    }
  }
}
