/** scripts/torture: what counts as a leak, and wrong arguments. It is not run here: test/survival/ has such tests. */
import { execFile } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { type Deeds, type Holdings, leaks, printFigures } from '../../scripts/lib/torture/figures.js';
import { FORMAT_WAYS, judgeImage, makeImage } from '../../scripts/lib/torture/ways.js';
import { dynamicVhd } from '../drivers/images/vhd.js';
import { whyNoQemu } from '../drivers/qemu.js';

const RUN = fileURLToPath(new URL('../../scripts/lib/torture/run.js', import.meta.url));
const MIB = 1 << 20;
const HOLDINGS: Holdings = {
  keeperBytes: 66 * MIB,
  serverBytes: 210 * MIB,
  fds: 315,
  mounts: 3,
  files: 12,
  processes: 6,
};
const DEEDS: Deeds = { kills: 7, upgrades: 6, stops: 5, attaches: 4, detaches: 3, verified: 2 };

t.test('one more of any resource is a leak, except memory that may be garbage', async (t) => {
  t.same(leaks(HOLDINGS, HOLDINGS), []);
  for (const name of ['fds', 'mounts', 'files', 'processes'] as const) {
    const after = { ...HOLDINGS, [name]: HOLDINGS[name] + 1 };
    t.same(leaks(HOLDINGS, after), [`${name}: ${HOLDINGS[name]} before, ${after[name]} after`]);
    t.same(leaks(after, HOLDINGS), [], 'fewer is none');
  }
  for (const name of ['keeperBytes', 'serverBytes'] as const) {
    t.same(leaks(HOLDINGS, { ...HOLDINGS, [name]: HOLDINGS[name] + 54 * MIB }), []);
    t.match(leaks(HOLDINGS, { ...HOLDINGS, [name]: HOLDINGS[name] + 54 * MIB + 1 }), [new RegExp(`^${name}: `)]);
  }
});

t.test('the figures', async (t) => {
  const text = printFigures(DEEDS, { errors: ['bus t0: stop: gone'], mismatches: 1, hasFailedBus: false }, [
    'fds: 1 before, 2 after',
  ]);
  for (const line of [
    'kills      7',
    'verified   2',
    'errors     1',
    '  bus t0: stop: gone',
    'mismatches 1',
    'leaks      1',
  ]) {
    t.ok(text.split('\n').includes(line), line);
  }
});

t.test('images of formats are judged at the end', { skip: whyNoQemu() }, async (t) => {
  for (const driver of ['vhd', 'vdi', 'qcow2'] as const) {
    const image = join(t.testdir(), `disk.${driver}`);
    for (const way of FORMAT_WAYS[driver]) {
      await rm(image, { force: true });
      await makeImage(way, image, MIB);
      t.equal(await judgeImage(way, image), null, JSON.stringify(way));
    }
  }
  const path = join(t.testdir(), 'disk.vhd');
  const [way] = FORMAT_WAYS.vhd;
  await writeFile(path, dynamicVhd({ size: MIB, placed: [{ block: 3, data: Buffer.alloc(4096) }], hasFooter: false }));
  t.match(await judgeImage(way, path), /disk\.vhd: it was not closed$/);
  const bytes = dynamicVhd({ size: MIB, placed: [{ block: 3, data: Buffer.alloc(4096) }] });
  bytes.copy(bytes, 1536, 1536 + 12, 1536 + 16);
  await writeFile(path, bytes);
  t.match(await judgeImage(way, path), /disk\.vhd: block 3 at byte \d+ overlaps block 0/);
});

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [['--minutes', '0'], /^torture: --minutes takes a number above 0, not 0\n$/],
    [['--kills', 'many'], /^torture: --kills takes a number above 0, not many\n$/],
    [['--formats', 'vhd,qed'], /^torture: --formats: no format 'qed': there are qcow2, vdi, vhd\n$/],
    [['--hours', '1'], /^torture: .*--hours.*scripts\/torture --help\n$/],
  ] as const) {
    const outcome = await promisify(execFile)(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});
