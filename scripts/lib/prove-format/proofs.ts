/** What scripts/prove-format can look for. A trial is a function of its number. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vdiSubjects } from '../../../test/crash/blocks/vdi.js';
import { vhdSubjects } from '../../../test/crash/blocks/vhd.js';
import { vmdkSubjects } from '../../../test/crash/blocks/vmdk.js';
import { PowerCuts } from '../../../test/crash/cut-each.js';
import { differ } from '../../../test/crash/differ/differ.js';
import { DIFFER_DRIVERS, type DifferDriver } from '../../../test/crash/differ/images.js';
import { failAtEachCall } from '../../../test/crash/fail-each-call.js';
import { fuzz } from '../../../test/crash/fuzz/fuzz.js';
import { FUZZ_FORMATS, type FuzzFormat } from '../../../test/crash/fuzz/images.js';
import { killAtEachCall } from '../../../test/crash/kill-each-call.js';
import { type JudgedSubject, QCOW2_KINDS, qcow2Subject } from '../../../test/crash/qcow2/subjects.js';
import { mix, randomSituation, SITUATIONS, type Situation } from '../../../test/crash/situations.js';
import type { Subject } from '../../../test/crash/subject.js';
import { toySubjects } from '../../../test/crash/toy/subjects.js';
import { Random } from '../torture/second-faults/random.js';
import type { Settings } from './words.js';

/** What was done. */
export interface Outcome {
  trials: number;
  faults: number;
}

interface Proof {
  readonly about: string;
  readonly drivers: readonly string[];
  /** @param tell is given lines for the user */
  run(settings: Settings, tell: (line: string) => void): Promise<Outcome>;
}

const WRITERS = ['qcow2', 'vdi', 'vhd', 'vmdk', 'toy'];
/** trials with numbers in such a block have the same image and situation, so that it is recorded once */
const CUTS_TOGETHER = 50;

export const PROOFS = {
  kills: {
    about: 'a server is killed at each call, and the next one goes on',
    drivers: WRITERS,
    run: (settings, tell) =>
      overImages(settings, tell, async ({ subject }, situation, random) => {
        const [orders, secondKills] = [[random.below(5)], random.pick([0, 5, 9])];
        await killAtEachCall(subject, situation, { orders, secondKills });
      }),
  },
  cuts: { about: 'the power is cut, and an attach finds what was flushed', drivers: WRITERS, run: runCuts },
  errors: {
    about: 'each call fails once, and the server goes on',
    drivers: WRITERS,
    run: (settings, tell) =>
      overImages(settings, tell, async ({ subject }, situation) => void (await failAtEachCall(subject, situation))),
  },
  differ: {
    about: 'the same operations by our driver and by QEMU',
    drivers: ['qcow2', ...DIFFER_DRIVERS.filter((driver) => driver !== 'qcow2')],
    run: (settings, tell) => eachTrial(settings, tell, (seed) => differ(settings.driver as DifferDriver, seed)),
  },
  fuzz: {
    about: 'damaged images are refused, or served',
    drivers: FUZZ_FORMATS,
    run: runFuzz,
  },
} satisfies Record<string, Proof>;
export type ProofName = keyof typeof PROOFS;

const REPORT_MS = 60_000;

/** Makes trials until there are enough, or the time is up. */
async function eachTrial(
  { firstSeed, trials, seconds }: Settings,
  tell: (line: string) => void,
  attempt: (seed: number) => Promise<void>,
): Promise<Outcome> {
  const outcome: Outcome = { trials: 0, faults: 0 };
  const start = performance.now();
  let reported = start;
  while (outcome.trials < trials && performance.now() < start + seconds * 1000) {
    const seed = firstSeed + outcome.trials++;
    await attempt(seed).catch((error: Error) => {
      outcome.faults++;
      tell(`FAULT in trial ${seed}: ${error.message}`);
    });
    if (performance.now() < reported + REPORT_MS) continue;
    reported = performance.now();
    tell(`${outcome.trials} trials, ${outcome.faults} faults`);
  }
  return outcome;
}

/** One thread tries all mutants, so this has a loop of its own. */
async function runFuzz(
  { driver, firstSeed, trials, seconds }: Settings,
  tell: (line: string) => void,
): Promise<Outcome> {
  const limits = { ...(trials < Number.POSITIVE_INFINITY && { mutants: trials }), seconds };
  const report = await fuzz({ format: driver as FuzzFormat, firstSeed, ...limits });
  for (const fault of report.faults) tell(`FAULT: ${fault}`);
  return { trials: report.mutants, faults: report.faults.length };
}

type ImageTrial = (judged: JudgedSubject, situation: Situation, random: Random) => Promise<void>;

/** A trial for each number: its image, its situation and its choices follow from it. */
async function overImages(settings: Settings, tell: (line: string) => void, trial: ImageTrial): Promise<Outcome> {
  const images = await openImages(settings);
  try {
    return await eachTrial(settings, tell, async (seed) => {
      const random = new Random(mix(seed));
      await trial(await images.any(random), anySituation(random), random);
    });
  } finally {
    await images.close();
  }
}

async function runCuts(settings: Settings, tell: (line: string) => void): Promise<Outcome> {
  const images = await openImages(settings);
  let [block, cuts]: [number, PowerCuts | null] = [-1, null];
  try {
    return await eachTrial(settings, tell, async (seed) => {
      const own = Math.floor(seed / CUTS_TOGETHER);
      if (cuts === null || own !== block) {
        const random = new Random(mix(own));
        const { subject, byQemu } = await images.any(random);
        cuts = new PowerCuts(subject, anySituation(random), { second: { judge: byQemu, every: CUTS_TOGETHER } });
        block = own;
      }
      await cuts.trial(seed);
    });
  } finally {
    await images.close();
  }
}

function anySituation(random: Random): Situation {
  return random.isOneIn(2) ? random.pick(SITUATIONS) : randomSituation(random.below(2 ** 30));
}

async function subjectsOf(driver: string): Promise<Subject[]> {
  if (driver === 'vdi') return await vdiSubjects();
  if (driver === 'vhd') return await vhdSubjects();
  if (driver === 'vmdk') return await vmdkSubjects();
  return toySubjects();
}

interface Images {
  any(random: Random): Promise<JudgedSubject>;
  close(): Promise<void>;
}

/** The images of a driver; each is made when it is first needed. */
async function openImages({ driver, only }: Settings): Promise<Images> {
  const directory = await mkdtemp(join(tmpdir(), 'prove-format-'));
  const made = new Map<string, Promise<JudgedSubject>>();
  // QEMU is no judge of them: it knows neither their small blocks nor the bitmaps of a VHD
  const others = (await subjectsOf(driver)).map((subject): JudgedSubject => ({ subject, byQemu: async () => [] }));
  const make = async (kind: string, index: number): Promise<JudgedSubject> => {
    if (driver !== 'qcow2') return others[index] as JudgedSubject;
    const own = join(directory, `${index}`);
    await mkdir(own);
    return await qcow2Subject(QCOW2_KINDS[index] as (typeof QCOW2_KINDS)[number], own).catch((error: Error) => {
      throw new Error(`${kind}: the image cannot be made: ${error.message}`, { cause: error });
    });
  };
  const kinds = driver === 'qcow2' ? QCOW2_KINDS : others.map(({ subject }) => subject.name);
  const chosen = [...kinds.entries()].filter(([, kind]) => kind.includes(only));
  return {
    any(random) {
      const [index, kind] = random.pick(chosen);
      const found = made.get(kind) ?? make(kind, index);
      made.set(kind, found);
      return found;
    },
    close: () => rm(directory, { recursive: true }),
  };
}
