/** Compares the refcounts of an image with the references that were counted. */
import type { ByteRange, Leaks } from '../../examining/examiner.js';
import type { Counting } from './counting.js';
import { getRefcount } from './refcount-words.js';
import { countOf, MOST_REFERENCES, SAYS_ONE, SAYS_SHARED } from './references.js';
import type { BlockPlaces } from './stored-refcounts.js';
import { storedParts } from './stored-refcounts.js';

export interface Comparison {
  readonly leaks: Leaks;
  /** findings that only say that an entry does not mark a refcount of 1: a write copies the cluster needlessly */
  readonly unmarked: number;
  /** entries that will not agree with the refcounts when these are right */
  readonly wrongMarks: number;
  /** the end of the last cluster that is used, or is counted as used */
  readonly imageEnd: number;
}

/** Adds what is wrong to the findings. */
export async function compareRefcounts(counting: Counting, places: BlockPlaces): Promise<Comparison> {
  const { references, findings, header } = counting;
  const { clusterBytes, refcountOrder } = header;
  const leaks = new LeakList(clusterBytes);
  let [unmarked, wrongMarks] = [0, 0];
  let lastUsed = -1;
  for await (const { first, count, block, index } of storedParts(counting, places)) {
    for (let i = 0; i < count; i++) {
      const cluster = first + i;
      const stored = block === null ? 0 : getRefcount(block.bytes, refcountOrder, index + i);
      const word = references.words.get(cluster);
      if (stored === 0 && word === 0) continue;
      const counted = countOf(word);
      const isInside = cluster < references.imageClusters;
      if (isInside || counted > 0) lastUsed = cluster;
      if (counted === MOST_REFERENCES) findings.add(`cluster ${cluster} has too many references to count them`);
      else if (stored < counted) findings.add(tooLow(cluster, stored, counted));
      // QEMU leaves refcounts behind the end of the image, too
      else if (stored > counted && isInside) leaks.add(cluster);
      if ((word & (counted === 1 ? SAYS_SHARED : SAYS_ONE)) !== 0) wrongMarks += 1;
      if ((word & SAYS_ONE) !== 0 && stored !== 1) {
        findings.add(`an entry says that the refcount of cluster ${cluster} is 1, but it is ${stored}`);
      } else if ((word & SAYS_SHARED) !== 0 && stored === 1) {
        findings.add(`an entry says that the refcount of cluster ${cluster} is not 1, but it is`);
        unmarked += 1;
      }
    }
  }
  return { leaks: leaks.all(), unmarked, wrongMarks, imageEnd: (lastUsed + 1) * clusterBytes };
}

function tooLow(cluster: number, stored: number, counted: number): string {
  return `the refcount of cluster ${cluster} is ${stored}, but it has ${counted} reference${counted === 1 ? '' : 's'}`;
}

const MOST_RANGES = 100;

class LeakList {
  readonly #clusterBytes: number;
  readonly #ranges: ByteRange[] = [];
  #clusters = 0;

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
  }

  add(cluster: number): void {
    this.#clusters += 1;
    const offset = cluster * this.#clusterBytes;
    const last = this.#ranges.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      this.#ranges[this.#ranges.length - 1] = { ...last, length: last.length + this.#clusterBytes };
    } else if (this.#ranges.length < MOST_RANGES) this.#ranges.push({ offset, length: this.#clusterBytes });
  }

  all(): Leaks {
    return { clusters: this.#clusters, bytes: this.#clusters * this.#clusterBytes, ranges: this.#ranges };
  }
}
