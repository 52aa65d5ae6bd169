/**
 * The jobs: work on a disk that is timed. The name has all parameters: `randread-4k-qd32-j4-buffered-cold`.
 *
 *   PATTERN-BLOCK-qdDEPTH[-j4][-buffered][-fsync][-cold]   fio
 *   untar, small-files, sqlite                              a file system on a loop device on the disk
 *   fill-64k                                                a new disk, written once from its start to its end
 *   attach, detach, memory                                  the serving processes themselves
 */
import { FusetapError } from '../../../drivers/errors.js';
import { quoted } from '../../../drivers/quote.js';
import type { Better } from './statistics.js';

export type Unit = 'IOPS' | 'MB/s' | 's' | 'ms' | 'MiB';

interface JobFacts {
  readonly name: string;
  readonly unit: Unit;
  readonly better: Better;
}

export interface FioJob extends JobFacts {
  readonly kind: 'fio';
  /** for fio's --rw */
  readonly rw: 'read' | 'write' | 'rw' | 'randread' | 'randwrite' | 'randrw';
  readonly blockBytes: number;
  readonly depth: number;
  readonly processes: number;
  readonly direct: boolean;
  /** fsync after each write */
  readonly fsync: boolean;
  /** on an image on a disk, with an empty page cache */
  readonly cold: boolean;
}

export interface WorkloadJob extends JobFacts {
  readonly kind: 'workload';
  readonly name: 'untar' | 'small-files' | 'sqlite';
}

export interface ServiceJob extends JobFacts {
  readonly kind: 'service';
  readonly name: 'attach' | 'detach' | 'memory';
}

/** The whole of a disk that was just started is written once, with 4 requests at a time. */
export interface FillJob extends JobFacts {
  readonly kind: 'fill';
  readonly blockBytes: number;
  readonly depth: number;
}

export type Job = FioJob | WorkloadJob | FillJob | ServiceJob;

const BLOCKS = [
  { word: '4k', bytes: 4 << 10 },
  { word: '64k', bytes: 64 << 10 },
  { word: '1m', bytes: 1 << 20 },
] as const;
const ACCESSES = ['read', 'write', 'mix'] as const;

type FioChoice = Pick<FioJob, 'depth' | 'processes' | 'direct' | 'fsync' | 'cold'>;

function fioJob(block: (typeof BLOCKS)[number], access: (typeof ACCESSES)[number], choice: FioChoice): FioJob {
  const isRandom = block.bytes < 1 << 20;
  const words = [
    `${isRandom ? 'rand' : ''}${access}`,
    block.word,
    `qd${choice.depth}`,
    choice.processes > 1 && `j${choice.processes}`,
    !choice.direct && 'buffered',
    choice.fsync && 'fsync',
    choice.cold && 'cold',
  ];
  const rw = access === 'mix' ? 'rw' : access;
  return {
    kind: 'fio',
    name: words.filter((word) => word !== false).join('-'),
    unit: isRandom ? 'IOPS' : 'MB/s',
    better: 'more',
    rw: isRandom ? `rand${rw}` : rw,
    blockBytes: block.bytes,
    ...choice,
  };
}

function allFioJobs(): FioJob[] {
  const jobs: FioJob[] = [];
  for (const cold of [false, true])
    for (const direct of [true, false])
      for (const processes of [1, 4])
        for (const block of BLOCKS)
          for (const access of ACCESSES)
            for (const depth of [1, 4, 32])
              for (const fsync of access === 'write' && direct ? [false, true] : [false])
                jobs.push(fioJob(block, access, { depth, processes, direct, fsync, cold }));
  return jobs;
}

const WORKLOADS = (['untar', 'small-files', 'sqlite'] as const).map(
  (name): WorkloadJob => ({ kind: 'workload', name, unit: 's', better: 'less' }),
);
const FILL: FillJob = {
  ...{ kind: 'fill', name: 'fill-64k', unit: 'MB/s', better: 'more', blockBytes: 64 << 10, depth: 4 },
};
const SERVICE: readonly ServiceJob[] = [
  { kind: 'service', name: 'attach', unit: 'ms', better: 'less' },
  { kind: 'service', name: 'detach', unit: 'ms', better: 'less' },
  { kind: 'service', name: 'memory', unit: 'MiB', better: 'less' },
];

/** All jobs; those that measure the serving processes come last, when these have worked. */
export const ALL_JOBS: readonly Job[] = [...allFioJobs(), ...WORKLOADS, FILL, ...SERVICE];

/** Named lists of jobs. */
export const JOB_LISTS: Readonly<Record<string, readonly string[]>> = {
  all: ['*'],
  default: [
    'randread-4k-qd1',
    'randread-4k-qd32',
    'randread-4k-qd32-j4',
    'randwrite-4k-qd1',
    'randwrite-4k-qd32',
    'randwrite-4k-qd1-fsync',
    'randmix-4k-qd32',
    'randread-64k-qd4',
    'read-1m-qd1',
    'read-1m-qd32',
    'write-1m-qd32',
    'randread-4k-qd32-cold',
    'attach',
    'detach',
    'memory',
  ],
  quick: ['randread-4k-qd32', 'read-1m-qd1', 'read-1m-qd4', 'read-1m-qd32'],
  qcow2: ['randread-4k-qd32', 'randwrite-4k-qd32', 'read-1m-qd4', 'write-1m-qd4', 'fill-64k'],
  workloads: WORKLOADS.map(({ name }) => name),
};

/**
 * The jobs for a list of words: a job's name, a name with `*`, or the name of a list. Each job once, in the order of
 * ALL_JOBS.
 * @throws FusetapError USAGE for a word that matches no job
 */
export function selectJobs(words: readonly string[]): Job[] {
  const chosen = new Set<Job>();
  for (const word of words.flatMap((word) => JOB_LISTS[word] ?? [word])) {
    const matches = ALL_JOBS.filter(({ name }) => matchesWord(name, word));
    if (matches.length === 0) {
      throw new FusetapError('USAGE', `there is no job ${quoted(word)}`, { hint: 'see scripts/bench --list' });
    }
    for (const job of matches) chosen.add(job);
  }
  return ALL_JOBS.filter((job) => chosen.has(job));
}

/** Whether a name matches the word, in which `*` matches any characters. */
export function matchesWord(name: string, word: string): boolean {
  const parts = word.split('*').map((part) => part.replace(/[^\w-]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`).test(name);
}
