/**
 * A word of 32 bits for each cluster of an image; all are 0 at first. In an image of very many clusters, the memory depends
 * on how many words are set: an image of a few megabytes can name clusters all over a sparse file of exabytes.
 *
 *      not too many clusters, so that all fit into SMALL_BYTES    pages are arrays
 *      more, or behind the end of the image                       a page with few words: they are in a hash table
 *                                                                 a page with more: it is an array
 */

/** clusters of a page */
export const PAGE_CLUSTERS = 1024;
/** a page with more clusters than this becomes an array: that takes as much memory as they do in the hash table */
const MOST_FEW = 64;
const SMALL_BYTES = 128 << 20;

export class ClusterWords {
  readonly #pages = new Map<number, Uint32Array>();
  readonly #few = new WordTable();
  readonly #fewOnPage = new WordTable();
  /** the page used last: most references follow one another */
  #lastNumber = -1;
  #lastPage: Uint32Array | undefined;
  /** pages below this one are arrays from the start: that is faster */
  readonly #arrays: number;

  /** @param clusters of the image; words of clusters behind them can be set, too */
  constructor(clusters: number) {
    this.#arrays = clusters * 4 > SMALL_BYTES ? 0 : Math.ceil(clusters / PAGE_CLUSTERS);
  }

  get(cluster: number): number {
    return this.#page(cluster)?.[cluster % PAGE_CLUSTERS] ?? this.#few.get(cluster);
  }

  /** @param word not 0 */
  set(cluster: number, word: number): void {
    const page = this.#page(cluster) ?? this.#pageToBe(cluster);
    if (page === undefined) this.#few.set(cluster, word);
    else page[cluster % PAGE_CLUSTERS] = word;
  }

  #page(cluster: number): Uint32Array | undefined {
    const number = Math.floor(cluster / PAGE_CLUSTERS);
    if (number !== this.#lastNumber) {
      this.#lastPage = this.#pages.get(number);
      this.#lastNumber = number;
    }
    return this.#lastPage;
  }

  /** The array of a page that has none yet; undefined: its words stay in the hash table. */
  #pageToBe(cluster: number): Uint32Array | undefined {
    const number = Math.floor(cluster / PAGE_CLUSTERS);
    const isArray = number < this.#arrays;
    if (!isArray && this.#few.get(cluster) !== 0) return undefined;
    const count = this.#fewOnPage.get(number) + 1;
    this.#fewOnPage.set(number, count);
    if (!isArray && count <= MOST_FEW) return undefined;
    const page = new Uint32Array(PAGE_CLUSTERS);
    const first = number * PAGE_CLUSTERS;
    if (!isArray) for (let i = 0; i < PAGE_CLUSTERS; i++) page[i] = this.#few.get(first + i);
    this.#pages.set(number, page);
    this.#lastPage = page;
    return page;
  }

  /** Whether a word of the page is set. */
  hasPage(number: number): boolean {
    return this.#fewOnPage.get(number) !== 0;
  }

  /** The pages with words that are set, in order. */
  pages(): Float64Array {
    return this.#fewOnPage.keys().sort();
  }
}

/** A hash table of numbers with open addressing: 12 bytes a slot, a power of 2 of slots, at most 6 of 10 are used. */
class WordTable {
  /** a key plus 1; 0 is a free slot */
  #keys = new Float64Array(64);
  #words = new Uint32Array(64);
  #count = 0;
  /** random: an image cannot be made so that its clusters collide */
  readonly #factors = [oddNumber(), oddNumber()] as const;

  get(key: number): number {
    return this.#words[this.#slotOf(key)] as number;
  }

  set(key: number, word: number): void {
    let slot = this.#slotOf(key);
    if (this.#keys[slot] === 0) {
      if (++this.#count > 0.6 * this.#keys.length) {
        this.#grow();
        slot = this.#slotOf(key);
      }
      this.#keys[slot] = key + 1;
    }
    this.#words[slot] = word;
  }

  keys(): Float64Array {
    return this.#keys.filter((key) => key !== 0).map((key) => key - 1);
  }

  /** The slot that has the key, or the free one for it. */
  #slotOf(key: number): number {
    const [low, high] = this.#factors;
    const mask = this.#keys.length - 1;
    const mixed = Math.imul(key % 2 ** 32, low) ^ Math.imul(Math.floor(key / 2 ** 32), high);
    // the high bits of a product depend on more bits of the key than the low ones
    let slot = (mixed ^ (mixed >>> 15)) & mask;
    while (this.#keys[slot] !== 0 && this.#keys[slot] !== key + 1) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const [keys, words] = [this.#keys, this.#words];
    this.#keys = new Float64Array(2 * keys.length);
    this.#words = new Uint32Array(2 * keys.length);
    for (const [old, key] of keys.entries()) {
      if (key === 0) continue;
      const slot = this.#slotOf(key - 1);
      this.#keys[slot] = key;
      this.#words[slot] = words[old] as number;
    }
  }
}

function oddNumber(): number {
  return Math.floor(Math.random() * 2 ** 31) * 2 + 1;
}
