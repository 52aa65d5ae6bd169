/**
 * Counts the references to each cluster of an image, and notes what the references say about the cluster.
 *
 *      bits 0 to 23   how many references, at most 2^24 − 1
 *      24 to 27       what refers to it: KIND
 *      28             the active tables refer to it; else only those of snapshots
 *      30, 31         an entry of the active tables says that its refcount is 1; that it is not
 */

import type { Findings } from '../../examining/findings.js';
import { ClusterWords } from './cluster-words.js';

/** a cluster with so many references has too many to count */
export const MOST_REFERENCES = 0x00ff_ffff;

export const KIND = {
  /** the header, tables that are found by it, and all else that nobody shares */
  own: 1 << 24,
  /** an L2 table: the active L1 table and those of snapshots share them */
  table: 1 << 25,
  data: 1 << 26,
  /** a compressed stream: several share a cluster */
  stream: 1 << 27,
} as const;
const ALL_KINDS = 0x0f << 24;
const KIND_NAMES: readonly (readonly [bit: number, name: string])[] = [
  [KIND.own, 'metadata'],
  [KIND.table, 'an L2 table'],
  [KIND.data, 'data'],
  [KIND.stream, 'compressed data'],
];

export const IS_ACTIVE = 1 << 28;
export const SAYS_ONE = 1 << 30;
export const SAYS_SHARED = 1 << 31;

/** How many references a word counts. */
export function countOf(word: number): number {
  return word & MOST_REFERENCES;
}

export interface ReferenceOptions {
  readonly clusterBytes: number;
  readonly imageBytes: number;
  /** the active L1 table and those of snapshots */
  readonly trees: number;
  readonly findings: Findings;
  /**
   * What may be right, but no program makes it: two guest clusters of one tree that share a host cluster. If the refcounts
   * are known to be right, it is no fault. Otherwise one of the references is wrong, and nobody knows which.
   */
  readonly doubts: Findings;
}

export class References {
  readonly words: ClusterWords;
  /** clusters of data that are behind the end of the image: they read as zeros */
  beyondEnd = 0;
  /** the first cluster behind all that are referred to */
  end = 0;
  /** clusters of the image; the last one may be cut */
  readonly imageClusters: number;
  readonly #options: ReferenceOptions;

  constructor(options: ReferenceOptions) {
    this.#options = options;
    this.imageClusters = Math.ceil(options.imageBytes / options.clusterBytes);
    this.words = new ClusterWords(this.imageClusters);
  }

  /**
   * Counts clusters that nobody shares. If they are not valid, they are a finding.
   * @param what for example `the L1 table`
   * @returns whether they can be read: they are in the image, and were not counted before. So the sum of all such reads is
   *   not more than the image has
   */
  own(offset: number, bytes: number, what: string): boolean {
    const { clusterBytes, findings } = this.#options;
    const first = offset / clusterBytes;
    const end = Math.ceil((offset + bytes) / clusterBytes);
    if (!Number.isInteger(first)) {
      findings.add(`${what} begins at byte ${offset}, which is not the begin of a cluster`);
      return false;
    }
    if (end > this.imageClusters) {
      findings.add(`${what} at byte ${offset} ends behind the end of the image`);
      return false;
    }
    for (let cluster = first; cluster < end; cluster++) {
      if (!this.add(cluster, KIND.own, 1, () => what)) return false;
    }
    return true;
  }

  /**
   * Counts references to a cluster.
   * @param marks a KIND, and what the entry says
   * @param describe names what refers to it, for a finding
   * @returns false if something else is there already
   */
  add(cluster: number, marks: number, weight: number, describe: () => string): boolean {
    const before = this.words.get(cluster);
    const count = Math.min(countOf(before) + weight, MOST_REFERENCES);
    this.words.set(cluster, (before & ~MOST_REFERENCES) | marks | count);
    if (cluster >= this.end) this.end = cluster + 1;
    if (before === 0) return true;
    const kind = marks & ALL_KINDS;
    const isClash = (before & ALL_KINDS) !== kind || kind === KIND.own;
    if (isClash) {
      this.#options.findings.add(`${describe()} is in cluster ${cluster}, where ${kindNames(before)} is too`);
    } else if (kind !== KIND.stream && ((before & marks & IS_ACTIVE) !== 0 || count > this.#options.trees)) {
      this.#options.doubts.add(
        `${describe()} is in cluster ${cluster}, where ${kindNames(before)} of other entries is`,
      );
    }
    return !isClash;
  }
}

function kindNames(word: number): string {
  return KIND_NAMES.flatMap(([bit, name]) => ((word & bit) === 0 ? [] : [name])).join(' and ');
}
