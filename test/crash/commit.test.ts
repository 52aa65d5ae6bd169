/**
 * Kills, power cuts and errors at each call of commits, with requests before, during and after them. FUSETAP_TEST_SEED
 * repeats a run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { whyNoQemu } from '../drivers/qemu.js';
import { seedOf } from '../rules/random.js';
import { PowerCuts } from './cut-each.js';
import { failAtEachCall } from './fail-each-call.js';
import { killAtEachCall } from './kill-each-call.js';
import { COMMITS, OVERLAY_KINDS, overlaySubject } from './qcow2/overlays.js';
import { mix, type Situation } from './situations.js';

t.setTimeout(300_000);

const CUTS = 25;
const seed = seedOf(t);

for (const [index, kind] of OVERLAY_KINDS.entries()) {
  t.test(kind, { skip: whyNoQemu() }, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'crash-'));
    t.teardown(() => rm(directory, { recursive: true }));
    const random = new Random(mix(seed + index));
    const subject = await overlaySubject(kind, directory);
    const count = { kills: 0, errors: 0 };
    const first = random.below(COMMITS.length);
    // all of them in turns of two, so that each run takes about a minute
    for (const situation of [0, 1].map((next) => COMMITS[(first + next) % COMMITS.length] as Situation)) {
      const orders = [random.below(3)];
      count.kills += (
        await killAtEachCall(subject, situation, { orders, reaches: ['unreported'], secondKills: 0 })
      ).kills;
    }
    count.errors = await failAtEachCall(subject, random.pick(COMMITS));
    for (const situation of COMMITS) {
      const cuts = new PowerCuts(subject, situation);
      for (let cut = 0; cut < CUTS; cut++) await cuts.trial(random.below(2 ** 30));
    }
    t.comment(`${count.kills} kills, ${count.errors} errors`);
    t.ok(count.kills > 10 && count.errors > 5);
  });
}
