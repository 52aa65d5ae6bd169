/**
 * Kills, power cuts and errors in what the driver qcow2 does to images of each kind. Each run takes other kinds and
 * situations: FUSETAP_TEST_SEED repeats one. `scripts/prove-format` does the same for as long as wanted.
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
import type { Reach } from './life.js';
import { QCOW2_KINDS, type Qcow2Kind, qcow2Subject } from './qcow2/subjects.js';
import { mix, randomSituation, SITUATIONS } from './situations.js';

t.setTimeout(240_000);

const CUTS = 12;
const KINDS_AT_ONCE = 8;
const seed = seedOf(t);
const first = new Random(mix(seed)).below(QCOW2_KINDS.length);

for (let index = 0; index < KINDS_AT_ONCE; index++) {
  const kind = QCOW2_KINDS[(first + index) % QCOW2_KINDS.length] as Qcow2Kind;
  t.test(kind, { skip: whyNoQemu() }, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'crash-'));
    t.teardown(() => rm(directory, { recursive: true }));
    const random = new Random(mix(seed + index));
    const { subject, byQemu } = await qcow2Subject(kind, directory);
    const [killed, failing] = [random.pick(SITUATIONS), random.pick(SITUATIONS)];
    const orders = [random.below(3)];
    const reaches = [random.pick<Reach>(['done', 'unreported', 'torn'])];
    const { kills } = await killAtEachCall(subject, killed, { orders, reaches, secondKills: 0 });
    const { secondKills } = await killAtEachCall(subject, random.pick(SITUATIONS), {
      orders,
      reaches,
      secondKills: 15,
    });
    const errors = await failAtEachCall(subject, failing);
    for (const situation of [random.pick(SITUATIONS), randomSituation(random.below(2 ** 30))]) {
      const cuts = new PowerCuts(subject, situation, { second: { judge: byQemu, every: CUTS } });
      for (let cut = 0; cut < CUTS; cut++) await cuts.trial(random.below(2 ** 30));
    }
    t.comment(`${kills} kills and ${secondKills} second ones in ${killed.name}; ${errors} errors in ${failing.name}`);
  });
}
