/** scripts/torture --second-faults: it finds wrong bytes, it excuses only what it should, and its arguments. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { Journal } from '../../scripts/lib/torture/second-faults/journal.js';
import {
  BLOCK_BYTES,
  compareBlock,
  fillBlock,
  generationOf,
  SECTOR_BYTES,
} from '../../scripts/lib/torture/second-faults/pattern.js';
import { printTable, spread } from '../../scripts/lib/torture/second-faults/table.js';
import { whyNot } from '../e2e/fixtures.js';

const RUN = fileURLToPath(new URL('../../scripts/lib/torture/second-faults/run.js', import.meta.url));
const PLACE = { disk: 7, block: 12 };

function block(generation: number, place = PLACE): Buffer {
  const buffer = Buffer.alloc(BLOCK_BYTES);
  fillBlock(buffer, place, generation);
  return buffer;
}

/** The first sectors of one block, the rest of another. */
function torn(first: Buffer, rest: Buffer, sectors: number): Buffer {
  return Buffer.concat([first.subarray(0, sectors * SECTOR_BYTES), rest.subarray(sectors * SECTOR_BYTES)]);
}

t.test('acknowledged data is distinguished from old, new, torn, misplaced or lost data', async (t) => {
  t.equal(compareBlock(block(5), PLACE, [5]), null);
  t.equal(compareBlock(block(0), PLACE, [0]), null, 'never written');
  t.match(compareBlock(block(4), PLACE, [5]), /^block 12 sector 0 has generation 4 of block 12 .* not generation 5$/);
  t.match(compareBlock(torn(block(5), block(4), 3), PLACE, [5]), /^block 12 sector 3 has generation 4 /);
  t.match(compareBlock(block(5, { disk: 7, block: 13 }), PLACE, [5]), / of block 13 /);
  t.match(compareBlock(block(5, { disk: 8, block: 12 }), PLACE, [5]), / of disk 8/);
  t.match(compareBlock(block(0), PLACE, [5]), / has zeros, /);
  const odd = block(5);
  odd[3 * SECTOR_BYTES + 500] = (odd[3 * SECTOR_BYTES + 500] as number) ^ 1;
  t.match(compareBlock(odd, PLACE, [5]), /^block 12 sector 3 /, 'one bit');
});

t.test('after a write that failed each sector may be old or new', async (t) => {
  t.equal(compareBlock(torn(block(6), block(5), 3), PLACE, [5, 6]), null);
  t.match(compareBlock(torn(block(6), block(4), 3), PLACE, [5, 6]), /^block 12 sector 3 /);
});

t.test('a block of a copy has one generation', async (t) => {
  t.equal(generationOf(block(5), PLACE), 5);
  t.equal(generationOf(block(0), PLACE), 0);
  t.match(generationOf(torn(block(5), block(6), 1), PLACE), /sector 1/);
});

t.test('a fault excuses only its own failures, and only while it is active', async (t) => {
  const printed: string[] = [];
  const journal = new Journal((line) => printed.push(line));
  const failure = { bus: 't0', path: '/b/xvda', code: 'EPERM', fromMs: Date.now(), untilMs: Date.now() + 60_000 };
  t.equal(journal.isIoExcused(failure), false, 'no fault stands');
  const standing = journal.begin('locked', '/b/xvda', { io: { path: '/b/xvda', codes: ['EPERM'] } });
  t.equal(journal.isIoExcused(failure), true);
  t.equal(journal.isIoExcused({ ...failure, path: '/b/xvdb' }), false, 'another disk');
  t.equal(journal.isIoExcused({ ...failure, code: 'EIO' }), false, 'another error');
  journal.end(standing);
  const later = standing.untilMs + 1;
  t.equal(journal.isIoExcused({ ...failure, fromMs: later, untilMs: later }), false, 'it is undone');
  journal.begin('descriptors', 'a keeper', { commands: { kinds: ['attach'], bus: 't0' } });
  t.equal(journal.isCommandExcused('t0', 'attach', Date.now()), true);
  t.equal(journal.isCommandExcused('t1', 'attach', Date.now()), false, 'another bus');
  t.equal(journal.isCommandExcused('t0', 'detach', Date.now()), false, 'another command');
  journal.error('t0', 'gone');
  t.match(printed, [/^error: bus t0: gone \[at .* s, under .*descriptors \(a keeper\)\]$/]);
});

t.test('the table', async (t) => {
  const journal = new Journal(() => {});
  journal.begin('full', 'bytes');
  for (const ms of [1, 2, 3, 400]) journal.timed('attach', ms);
  journal.refused.set('attach', 1);
  journal.error('t0', 'gone');
  const lines = printTable(journal, ['fds: 1 before, 2 after']).split('\n');
  t.ok(lines.some((line) => /^fault full\s+1$/.test(line)));
  t.ok(lines.some((line) => /^attach\s+4\s+1\s+3\s+400\s+400$/.test(line)));
  t.ok(lines.includes('errors 1'));
  t.ok(lines.includes('leaks  1'));
  t.same(spread([5, 1, 3]), { median: 3, p95: 5, max: 5 });
});

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [['--minutes', '0'], /^torture: --minutes takes a number above 0, not 0\n$/],
    [['--buses', '0'], /^torture: --buses takes a whole number from 1 on, not 0\n$/],
    [['--seed', 'x'], /^torture: --seed takes a whole number from 0 on, not x\n$/],
    [['--faults', 'full,flood'], /^torture: --faults: no fault 'flood': there are locked, full, .*\n$/],
    [['--hours', '1'], /^torture: .*--hours.*scripts\/torture --second-faults --help\n$/],
  ] as const) {
    const outcome = await promisify(execFile)(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});

t.test('a short run finds nothing', { skip: whyNot('mkfs.ext4', 'losetup') }, async (t) => {
  const words = ['--buses', '1', '--minutes', '0.1', '--faults', 'signals,both-killed', '--seed', '1'];
  const { code, stdout, stderr } = await new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    execFile(process.execPath, [RUN, ...words], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
  t.equal(code, 0, stdout);
  t.equal(stderr, '');
  t.match(stdout, /^fault /m);
  t.match(stdout, /^errors 0$/m);
});
