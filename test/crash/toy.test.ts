/**
 * The harness finds mistakes: a driver of a toy format that is right passes, and each mistake that it can make on
 * purpose is found. FUSETAP_TEST_SEED is the first seed of the power cuts.
 */
import t from 'tap';
import { CrashFault } from './client.js';
import { PowerCuts } from './cut-each.js';
import { failAtEachCall } from './fail-each-call.js';
import { killAtEachCall } from './kill-each-call.js';
import { randomSituation, SITUATIONS } from './situations.js';
import type { Subject } from './subject.js';
import { MISTAKES, type Mistake } from './toy/format.js';
import { toySubjects } from './toy/subjects.js';

t.setTimeout(300_000);

const FIRST_SEED = Number(process.env.FUSETAP_TEST_SEED ?? 1);
const CUTS = 40;
const RANDOM = [1, 2, 3].map((seed) => randomSituation(seed));

const HARNESSES = {
  kills: async (subject: Subject): Promise<void> => {
    for (const situation of SITUATIONS) {
      await killAtEachCall(subject, situation, { orders: [1], reaches: ['done'], secondKills: 0 });
      await killAtEachCall(subject, situation, { secondKills: 0 });
    }
  },
  'second kills': async (subject: Subject): Promise<void> => {
    for (const situation of SITUATIONS.slice(0, 6)) {
      await killAtEachCall(subject, situation, { reaches: ['unreported'], secondKills: 7 });
    }
  },
  'power cuts': async (subject: Subject): Promise<void> => {
    for (const situation of [...SITUATIONS, ...RANDOM]) {
      const cuts = new PowerCuts(subject, situation);
      for (let seed = FIRST_SEED; seed < FIRST_SEED + CUTS; seed++) await cuts.trial(seed);
    }
  },
  errors: async (subject: Subject): Promise<void> => {
    for (const situation of SITUATIONS) await failAtEachCall(subject, situation);
  },
} as const;
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
  for (const [name, run] of Object.entries(HARNESSES)) t.test(`${subject.name}: ${name}`, async () => run(subject));
}

for (const [mistake, harness] of Object.entries(FOUND_BY) as [Mistake, Harness][]) {
  t.test(`${harness} find that ${MISTAKES[mistake]}`, async (t) => {
    const faults: Error[] = [];
    for (const subject of toySubjects(mistake).reverse()) {
      await HARNESSES[harness](subject).catch((error: Error) => faults.push(error));
      if (faults.length > 0) break;
    }
    t.ok(faults[0] instanceof CrashFault, faults[0]?.message ?? 'found');
  });
}
