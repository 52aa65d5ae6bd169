/**
 * Kills, power cuts and errors in what the drivers of formats with blocks do. Each run takes other situations:
 * FUSETAP_TEST_SEED repeats one. `scripts/prove-format` does the same for as long as wanted.
 */
import t from 'tap';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { seedOf } from '../rules/random.js';
import { vdiSubjects } from './blocks/vdi.js';
import { vhdSubjects } from './blocks/vhd.js';
import { vmdkSubjects } from './blocks/vmdk.js';
import { PowerCuts } from './cut-each.js';
import { failAtEachCall } from './fail-each-call.js';
import { killAtEachCall } from './kill-each-call.js';
import type { Reach } from './life.js';
import { mix, randomSituation, SITUATIONS } from './situations.js';

t.setTimeout(240_000);

const CUTS = 40;
const seed = seedOf(t);

const subjects = [...(await vdiSubjects()), ...(await vhdSubjects()), ...(await vmdkSubjects())];
for (const [index, subject] of subjects.entries()) {
  t.test(subject.name, async (t) => {
    const random = new Random(mix(seed + index));
    const [killed, failing] = [random.pick(SITUATIONS), random.pick(SITUATIONS)];
    const reaches = [random.pick<Reach>(['done', 'unreported', 'torn'])];
    const { kills } = await killAtEachCall(subject, killed, { orders: [random.below(3)], reaches, secondKills: 0 });
    const second = { orders: [random.below(3)], reaches, secondKills: 15 };
    const { secondKills } = await killAtEachCall(subject, random.pick(SITUATIONS), second);
    const errors = await failAtEachCall(subject, failing);
    for (const situation of [random.pick(SITUATIONS), randomSituation(random.below(2 ** 30))]) {
      const cuts = new PowerCuts(subject, situation);
      for (let cut = 0; cut < CUTS; cut++) await cuts.trial(random.below(2 ** 30));
    }
    t.comment(`${kills} kills and ${secondKills} second ones in ${killed.name}; ${errors} errors in ${failing.name}`);
  });
}
