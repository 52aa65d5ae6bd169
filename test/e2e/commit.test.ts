import { rename, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { qemuCheck } from '../drivers/qcow2/qemu-images.js';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { type Bus, startBus } from '../survival/bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from '../survival/fio.js';
import { collect, type Outcome } from './command.js';
import { type Bench, whyNot } from './fixtures.js';
import { replaceServer } from './kill-server.js';
import { standStill } from './stand-still.js';

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
    const end = performance.now() + 12_000;
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

/** A bus with an overlay of which 20 MiB were written. */
async function written(t: Test, format: 'raw' | 'qcow2' = 'raw'): Promise<Stage> {
  const bus = await startBus(t);
  const { bench } = bus;
  const files = await overlay(bench, { format });
  const path = await bench.attach(`qcow2:${files.overlay}`);
  const write = async (megabyte: number, count: number): Promise<void> => {
    const script = 'head -c "$3"M /dev/urandom | dd of="$1" bs=1M seek="$2" conv=notrunc iflag=fullblock status=none';
    await bench.sh(script, path, String(megabyte), String(count));
  };
  await write(3, 20);
  return { bus, bench, ...files, path, write, sum: () => bench.sh('md5sum < "$1"', path) };
}

interface Stage {
  readonly bus: Bus;
  readonly bench: Bench;
  readonly overlay: string;
  readonly base: string;
  readonly path: string;
  /** writes random bytes */
  write(megabyte: number, count: number): Promise<void>;
  /** of the bytes of the vbd */
  sum(): Promise<string>;
}

t.test('a commit tells what it has done', { skip }, async (t) => {
  const { bench, bus, base, overlay: top, sum } = await written(t);
  const before = await sum();
  const { blocks } = await stat(top);
  t.match(await commit(bench, '--json'), { status: 0, stdout: `{\n  "base": "${base}"\n}\n`, stderr: '' });
  t.equal(await sum(), before);
  t.ok((await stat(top)).blocks < blocks / 10, 'the overlay has its space back');
  t.match(await bus.log(), new RegExp(`committed vdev=xvda base=${base}`));
  t.match(await bench.fusetap(['commit', '--quiet', top]), { status: 0, stdout: `${base}\n`, stderr: '' });
  await bench.detach('xvda');
  t.match(await bench.fusetap(['commit', 'xvda']), { status: 3 }, 'no such vbd');
});

t.test('a chain is committed layer by layer, and only into the layer below', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const { overlay: middle, base } = await overlay(bench);
  const top = layer(bench, middle, 'top');
  qemuIo('qcow2', middle, 'write -P 1 1M 4M');
  qemuIo('qcow2', top, 'write -P 2 3M 4M');
  const bytes = async (): Promise<string> => bench.sh('md5sum < "$1"', base);
  const [before, path] = [await bytes(), await bench.attach(`qcow2:${top}`)];
  await bench.sh('cat "$1" > "$2"', path, bench.path('seen.raw'));
  t.match(await commit(bench), { status: 0, stdout: `${middle}\n` });
  await bench.sh('cmp "$1" "$2"', path, bench.path('seen.raw'));
  t.equal(await bytes(), before, 'the last base is as it was');
  await bench.detach('xvda');
  await bench.attach(`qcow2:${middle}`);
  t.match(await commit(bench), { status: 0, stdout: `${base}\n` });
  await bench.detach('xvda');
  await bench.sh('cmp "$1" "$2"', base, bench.path('seen.raw'));
});

t.test('a base that is too short grows', { skip }, async (t) => {
  const bench = (await startBus(t)).bench;
  const base = await bench.image('base.raw', 4 * MIB + 1000, 4 * MIB);
  const top = bench.path('top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, top, '8M');
  qemuIo('qcow2', top, 'write -P 1 7M 1M');
  const path = await bench.attach(`qcow2:${top}`);
  await bench.sh('cat "$1" > "$2"', path, bench.path('seen.raw'));
  t.match(await commit(bench), { status: 0 });
  await replaceServer(bench);
  await bench.sh('cmp "$1" "$2" && cmp "$1" "$3"', path, bench.path('seen.raw'), base);
});

t.test('other users of the base', { skip }, async (t) => {
  const { bench, bus, base, sum } = await written(t, 'qcow2');
  const before = await sum();
  const other = layer(bench, base, 'other');
  await bench.attach(`qcow2:${other}`);
  const refused = (by: RegExp) => ({ status: 4, stdout: '', stderr: by });
  t.match(await commit(bench), refused(/xvda cannot be committed to \S*base\.qcow2: xvdb on bus 0 uses it too/));
  await bench.detach('xvdb');
  await bench.succeed(['start', '--bus', 'b']);
  await bench.attach('--bus', 'b', `qcow2:${other}`);
  t.match(await commit(bench, '--bus', '0'), refused(/base\.qcow2 is attached with mode r by bus b as xvda/));
  await bench.detach('--bus', 'b', 'xvda');
  const qemu = bench.startProgram('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read 0 512', '-c', 'sleep 60000', base]);
  await delay(1500);
  t.match(await commit(bench), refused(/base\.qcow2 (is read by|must stay unchanged for|is locked)/));
  qemu.kill();
  await collect(qemu);
  t.equal(await sum(), before);

  // while it is committed, nobody can open the base; afterwards everybody can read it
  const committing = commit(bench);
  const during = await Promise.all([bench.execute('qemu-io', ['-f', 'qcow2', '-c', 'quit', base]), committing]);
  t.equal(during[1].status, 0);
  t.match(await bench.execute('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read 0 512', base]), { status: 0 });
  await bench.attach(`qcow2:${other}`);
  t.match(await bench.fusetap(['attach', `qcow2:${base}`]), { status: 4 }, 'it is read still');
  t.match(await bus.info(), { vbds: [{ changedOutside: false }, {}] });
});

t.test('what cannot be committed', { skip }, async (t) => {
  const { bench, bus, base, overlay: top, sum } = await written(t);
  const before = await sum();
  const refused = async (status: number, stderr: RegExp): Promise<void> => {
    t.match(await commit(bench), { status, stdout: '', stderr }, String(stderr));
  };
  await bench.succeed(['pause', 'xvda']);
  await refused(2, /xvda on bus 0 is paused: its images must not change/);
  await bench.succeed(['resume', 'xvda']);
  await rename(base, `${base}.old`);
  await refused(1, /base\.raw was moved, replaced or removed since it was opened/);
  await bench.sh('cp "$1" "$2"', `${base}.old`, base);
  await refused(1, /base\.raw was moved, replaced or removed/);
  await rename(`${base}.old`, base);
  const canLock = (await bench.try('chattr +i "$1"', base)).status === 0;
  if (canLock) await refused(5, /base\.raw cannot be written: it is immutable/);
  if (canLock) await bench.sh('chattr -i "$1"', base);
  t.equal(await sum(), before);
  t.match(await bus.info(), { restarts: 0 });
  await bench.detach('xvda');

  await bench.attach('-r', `qcow2:${top}`);
  await refused(2, /has mode r: only a vbd of mode w is committed/);
  await bench.detach('xvda');
  await bench.attach('--snapshot', `qcow2:${top}`);
  await refused(6, /xvda has no base that it could be committed to: its driver is snapshot/);
  await bench.detach('xvda');
  for (const spec of [base, `ram:qcow2:${top}`]) {
    await bench.attach(spec);
    await refused(6, /xvda has no base that it could be committed to/);
    await bench.detach('xvda');
  }
  qemuImg('snapshot', '-c', 'one', top);
  await bench.attach(`qcow2:${top}`);
  await refused(6, /it has internal snapshots, whose bytes would change with the base/);
  await bench.detach('xvda');
});

t.test('bases that cannot be written', { skip }, async (t) => {
  const bench = (await startBus(t)).bench;
  const over = async (format: string, ...options: string[]): Promise<Outcome> => {
    const [base, top] = [bench.path(`base.${format}`), bench.path(`${format}.qcow2`)];
    qemuImg('create', '-q', '-f', format, ...options, base, '4M');
    qemuImg('create', '-q', '-f', 'qcow2', '-F', format, '-b', base, top);
    qemuIo('qcow2', top, 'write -P 1 0 1M');
    const path = await bench.attach(`qcow2:${top}`);
    const outcome = await commit(bench);
    await bench.sh('head -c 1M "$1" | tr -d "\\001" | cmp - /dev/null', path);
    await bench.detach('xvda');
    return outcome;
  };
  t.match(await over('qcow2', '-o', 'compat=0.10'), { status: 6, stderr: /version 2, which can only be read/ });
  t.match(await over('vdi', '-o', 'static=on'), { status: 0 }, 'a flat VDI can');
});

t.test('a base on a block device', { skip: whyNot('losetup') || whyNoQemu() }, async (t) => {
  const bench = (await startBus(t)).bench;
  const loop = await bench.loop(await bench.image('base.raw', 8 * MIB, 4 * MIB));
  const top = bench.path('top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', loop, top);
  qemuIo('qcow2', top, 'write -P 1 1M 2M');
  await bench.attach('--backing', 'any', `qcow2:${top}`);
  t.match(await commit(bench), { status: 6, stderr: /is a partition or a loop device, and is attached with mode r/ });
  await bench.detach('xvda');
  // without the file below it, it is a device like others
  await bench.sh('rm "$1"', bench.path('base.raw'));
  const path = await bench.attach('--backing', 'any', `qcow2:${top}`);
  t.match(await commit(bench), { status: 0, stdout: `${loop}\n` });
  await bench.sh('cmp "$1" "$2"', path, loop);
  await bench.attach('-r', loop);
  t.match(await bench.fusetap(['attach', loop]), { status: 4 });
  await bench.detach('xvdb');
  await bench.detach('xvda');
  await bench.attach(loop);
  await bench.detach('xvda');
  await bench.sh('losetup -d "$1"', loop);
});

t.test('a base that is full', { skip }, async (t) => {
  const bench = (await startBus(t)).bench;
  const room = await bench.makeDirectory('room');
  await bench.sh('mount -t tmpfs -o size=8m none "$1"', room);
  const base = await bench.image('room/base.raw', 32 * MIB, 2 * MIB);
  const top = bench.path('top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, top);
  const path = await bench.attach('--backing', 'any', `qcow2:${top}`);
  await bench.sh('head -c 20M /dev/urandom | dd of="$1" bs=1M iflag=fullblock conv=notrunc status=none', path);
  const sum = (): Promise<string> => bench.sh('md5sum < "$1"', path);
  const before = await sum();
  const full = /xvda cannot be committed to \S*base\.raw: its base: .*ENOSPC/;
  t.match(await commit(bench), { status: 7, stdout: '', stderr: full });
  t.equal(await sum(), before);
  await bench.sh('mount -o remount,size=64m "$1"', room);
  t.match(await commit(bench), { status: 0 });
  t.equal(await sum(), before);
  await bench.detach('xvda');
  t.match(qemuCheck(top), { status: 0, clusters: { allocated: 0 } });
});

t.test('a commit that is given up', { skip }, async (t) => {
  const { bench, bus, write, sum } = await written(t);
  await write(0, 46);
  const before = await sum();
  const pid = await bus.serverPid();
  await standStill(pid);
  const child = bench.startFusetap(['commit', 'xvda']);
  const given = collect(child);
  await delay(2000);
  child.kill('SIGINT');
  await delay(500);
  t.equal(child.exitCode, null, 'it waits until the commit has stopped');
  process.kill(pid, 'SIGCONT');
  t.match(await given, { status: 130, stdout: '' });
  t.match(await commit(bench), { status: 0 }, 'at once');
  t.equal(await sum(), before);

  await write(0, 46);
  await standStill(pid);
  const both = [commit(bench), commit(bench)];
  const isBusy = { status: 4, stdout: '', stderr: /xvda on bus 0 is being committed to its base/ };
  t.match(await Promise.race(both), isBusy, 'one at a time');
  for (const verb of ['pause', 'reread', 'detach']) t.match(await bench.fusetap([verb, 'xvda']), isBusy, verb);
  process.kill(pid, 'SIGCONT');
  await bench.succeed(['detach', '--force', 'xvda']);
  const statuses = (await Promise.all(both)).map(({ status }) => status).sort();
  t.ok(statuses.every((status) => status === 4) || statuses[0] === 0, statuses.join());
});
