import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { qemuCheck } from '../drivers/qcow2/qemu-images.js';
import { qemuImg, whyNoQemu } from '../drivers/qemu.js';
import { startBus } from '../survival/bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from '../survival/fio.js';
import type { Outcome } from './command.js';
import { type Bench, whyNot } from './fixtures.js';

const skip = whyNot('fio') || whyNoQemu();
const MIB = 1 << 20;
t.setTimeout(600_000);

/** An overlay over a base that has bytes nearly everywhere. */
async function overlay(
  bench: Bench,
  { size = FIO_DISK_BYTES, format = 'raw' } = {},
): Promise<{ overlay: string; base: string }> {
  const raw = await bench.image('base.raw', size, size - MIB);
  const base = format === 'raw' ? raw : bench.path('base.qcow2');
  if (format !== 'raw') qemuImg('convert', '-f', 'raw', '-O', format, raw, base);
  return { overlay: layer(bench, base, 'overlay'), base };
}

/** Makes an overlay. @returns its path */
function layer(bench: Bench, base: string, name: string): string {
  const path = bench.path(`${name}.qcow2`);
  const format = base.endsWith('qcow2') ? 'qcow2' : 'raw';
  qemuImg('create', '-q', '-f', 'qcow2', '-F', format, '-b', base, path);
  return path;
}

const commit = (bench: Bench, ...words: string[]): Promise<Outcome> => bench.fusetap(['commit', ...words, 'xvda']);

/** The overlay is empty, and the base has the bytes of the vbd. Detaches. */
async function provesCommitted(t: Test, bench: Bench, files: { overlay: string; base: string }): Promise<void> {
  const format = files.base.endsWith('raw') ? 'raw' : 'qcow2';
  const path = bench.path('runtime/bus/0/xvda');
  await bench.sh('cat "$1" > "$2"', path, bench.path('seen.raw'));
  t.match(await commit(bench), { status: 0, stdout: `${files.base}\n` });
  await bench.sh('cmp "$1" "$2"', path, bench.path('seen.raw'));
  t.match(await bench.list(), [{ changedOutside: false, mode: 'w' }]);
  await bench.detach('xvda');
  t.match(qemuImg('compare', '-f', 'raw', '-F', format, bench.path('seen.raw'), files.base), /identical/);
  // the next attach repairs what a kill has left
  for (const image of [files.overlay, files.base]) {
    if (!image.endsWith('qcow2')) continue;
    await bench.attach(`qcow2:${image}`);
    await bench.detach('xvda');
    t.equal(qemuCheck(image).status, 0, image);
  }
  t.equal(qemuCheck(files.overlay).clusters.allocated, 0);
}

for (const [what, how, format] of [
  ['nothing happens', 'none', 'raw'],
  ['servers are killed', 'kill', 'raw'],
  ['servers are killed, over qcow2', 'kill', 'qcow2'],
  ['servers are replaced', 'upgrade', 'qcow2'],
] as const) {
  t.test(`fio finds no mismatch during commits while ${what}`, { skip }, async (t) => {
    const bus = await startBus(t);
    const { bench } = bus;
    const files = await overlay(bench, { format });
    const path = await bench.attach(`qcow2:${files.overlay}`);
    const fio = new Verifier(bench, path);
    const outcomes: Outcome[] = [];
    const end = performance.now() + 20_000;
    const committing = (async () => {
      while (performance.now() < end) outcomes.push(await commit(bench));
    })();
    const disturbing = (async () => {
      while (how !== 'none' && performance.now() < end) await bus.disturb(1, how).then(() => delay(1500));
    })();
    await Promise.all([committing, disturbing]);
    provesIntact(t, await fio.end(), what);
    t.ok(outcomes.length > 1, `${outcomes.length} commits`);
    const failed = outcomes.filter(({ status }) => status !== 0);
    t.same(failed, [], 'each commit has ended');
    await provesCommitted(t, bench, files);
  });
}
