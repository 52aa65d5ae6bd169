/** An upgrade is refused while a read for names does not end: its thread would keep the server from exiting. */
import t from 'tap';
import type { BusParts } from '../../../mount/keeper/vbds/bus-parts.js';
import { refuseWhereStuck } from '../../../mount/keeper/verbs/stuck-requests.js';

/** A bus without requests, whose server gives these answers one after another. */
function busWith(answers: ({ oldestMs: number } | undefined | Error)[]): BusParts {
  const request = async (): Promise<{ oldestMs: number } | undefined> => {
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const server = { pid: process.pid, request };
  const bus = { place: { name: '0' }, vbds: { all: () => [] }, ledger: { work: () => [] }, server };
  return bus as unknown as BusParts;
}

t.test('reads that do not end', async (t) => {
  const refused = { code: 'BUSY', message: /has not answered a request for 5 s: the server cannot be replaced/ };
  await t.rejects(refuseWhereStuck(busWith([{ oldestMs: 4_900 }, { oldestMs: 5_001 }])), refused);
});

t.test('no reads, reads that end, and a server that does not tell', async (t) => {
  await t.resolves(refuseWhereStuck(busWith([{ oldestMs: 0 }])));
  await t.resolves(refuseWhereStuck(busWith([{ oldestMs: 4_000 }, { oldestMs: 0 }])));
  await t.resolves(refuseWhereStuck(busWith([undefined])), 'an older one');
  await t.resolves(refuseWhereStuck(busWith([new Error('unknown command')])));
});
