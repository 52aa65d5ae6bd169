/** What the parts of a count share. */
import type { Disk } from '../../disk.js';
import type { Findings } from '../../examining/findings.js';
import type { Header } from '../format/header.js';
import type { References } from './references.js';

export interface Counting {
  readonly image: Disk;
  readonly header: Header;
  readonly references: References;
  /** faults of the image */
  readonly findings: Findings;
  /** Throws if the check was given up; else tells how much of the tables is counted, as a share of 1. */
  step(share: number): void;
}
