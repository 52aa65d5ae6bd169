/**
 * The harness finds mistakes: a driver of a toy format that is right passes, and each mistake that it can make on
 * purpose is found. The right one is tried in a few situations, other ones each time: FUSETAP_TEST_SEED repeats a run.
 */
import t from 'tap';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { seedOf } from '../rules/random.js';
import { CrashFault } from './client.js';
import { PowerCuts } from './cut-each.js';
import { failAtEachCall } from './fail-each-call.js';
import { killAtEachCall } from './kill-each-call.js';
import { mix, randomSituation, SITUATIONS, type Situation } from './situations.js';
import type { Subject } from './subject.js';
import { MISTAKES, type Mistake } from './toy/format.js';
import { toySubjects } from './toy/subjects.js';

t.setTimeout(300_000);

const seed = seedOf(t);
const random = new Random(mix(seed));
const RANDOM = [1, 2, 3].map((each) => randomSituation(each));

interface Scope {
  readonly situations: readonly Situation[];
  /** of the first power cut, and how many there are of each situation */
  readonly firstCut: number;
  readonly cuts: number;
}

type Run = (subject: Subject, scope: Scope) => Promise<void>;

const HARNESSES = {
  kills: async (subject, { situations }) => {
    for (const situation of situations) {
      await killAtEachCall(subject, situation, { orders: [1], reaches: ['done'], secondKills: 0 });
      await killAtEachCall(subject, situation, { secondKills: 0 });
    }
  },
  'second kills': async (subject, { situations }) => {
    for (const situation of situations.slice(0, 2)) {
      await killAtEachCall(subject, situation, { reaches: ['unreported'], secondKills: 9 });
    }
  },
  'power cuts': async (subject, { situations, firstCut, cuts: count }) => {
    for (const situation of situations) {
      const cuts = new PowerCuts(subject, situation);
      for (let cut = 0; cut < count; cut++) await cuts.trial(firstCut + cut);
    }
  },
  errors: async (subject, { situations }) => {
    for (const situation of situations) await failAtEachCall(subject, situation);
  },
} as const satisfies Record<string, Run>;
type Harness = keyof typeof HARNESSES;

const FOUND_BY: Readonly<Record<Mistake, Harness>> = {
  'pointer first': 'kills',
  'pointer and data at once': 'kills',
  'count last': 'kills',
  'acknowledges early': 'kills',
  'entries on the heap': 'kills',
  'reads in open': 'kills',
  'no barrier for a table': 'power cuts',
  'no barrier for a copy': 'power cuts',
  'never dirty': 'power cuts',
  'dirty without a flush': 'power cuts',
  'clean too early': 'power cuts',
  'uses a freed unit too early': 'power cuts',
  'frees before the entry': 'kills',
  'forgets other kills': 'kills',
  'writes the header whole': 'kills',
  'zeros the table first': 'kills',
  'keeps its size': 'kills',
  'repair is clean too early': 'power cuts',
  'merges old bytes': 'kills',
  'loses an error': 'errors',
};

for (const subject of toySubjects()) {
  for (const [name, run] of Object.entries(HARNESSES)) {
    t.test(`${subject.name}: ${name}`, async () => {
      const situations = [1, 2].map(() => random.pick([...SITUATIONS, ...RANDOM]));
      await run(subject, { situations, firstCut: seed, cuts: 25 });
    });
  }
}

// the seeds are always the same here: a mistake must be found each time
const ALL: Scope = { situations: [...SITUATIONS, ...RANDOM], firstCut: 1, cuts: 60 };

for (const [mistake, harness] of Object.entries(FOUND_BY) as [Mistake, Harness][]) {
  t.test(`${harness} find that ${MISTAKES[mistake]}`, async (t) => {
    const faults: Error[] = [];
    for (const subject of toySubjects(mistake).reverse()) {
      await HARNESSES[harness](subject, ALL).catch((error: Error) => faults.push(error));
      if (faults.length > 0) break;
    }
    t.ok(faults[0] instanceof CrashFault, faults[0]?.message ?? 'found');
  });
}
