/**
 * The rules for users other than root: an ordinary user and the root of a user namespace, each with the rules that apply.
 * Rule 4 is about loop devices and mounts, which only root can make.
 */
import t, { type Test } from 'tap';
import { type Bench, forEachWay, OTHERS, openBench } from '../e2e/fixtures.js';

t.setTimeout(120_000);

const SIZE = 1 << 20;
const WRITE = 'printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none';
const READ = 'tail -c +$(($2 + 1)) "$1" | head -c "$3"';

forEachWay(t, OTHERS, async (t, transport) => {
  const bench = await openBench(t, transport);
  await bench.begin();
  await bench.begin('--bus', 'other');
  const RULES = {
    'rule 1: one cache': oneCache,
    'rule 2: the file below belongs to the vbd': fileBelow,
    'rule 3: ram is a copy': copyOnAttach,
    'rule 5: durable': durable,
    'rule 6: order': order,
    'rule 7: the size is fixed': fixedSize,
    'rule 8: sharing': sharing,
    'rule 9: busy is busy': busy,
  };
  for (const [name, rule] of Object.entries(RULES)) await t.test(name, (t) => rule(t, bench));
  await bench.succeed(['stop', '--all']);
  t.same(await bench.traces(), []);
});

async function oneCache(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('one.img', SIZE, SIZE);
  const vbd = await bench.attach(image, 'xvda');
  await bench.sh(WRITE, vbd, '1000', 'vbd');
  t.equal(await bench.sh(READ, image, '1000', '3'), 'vbd', 'written to the vbd, read in the image');
  await bench.sh(WRITE, image, '2000', 'img');
  t.equal(await bench.sh(READ, vbd, '2000', '3'), 'img', 'and the other way');
  await bench.detach('xvda');

  const here = await bench.attach(`ram:${image}`, 'xvda');
  const there = await bench.attach('--bus', 'other', `ram:${image}`, 'xvda');
  await bench.sh(WRITE, here, '3000', 'ram');
  t.equal(await bench.sh(READ, there, '3000', '3'), 'ram', 'one memory on two buses');
  const map = 'import mmap, os, sys; mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)';
  t.match(
    await bench.execute('/usr/bin/python3', ['-c', map, here]),
    { status: 1, stderr: /Errno 19/ },
    'a shared mapping',
  );
  await bench.detach('xvda');
  await bench.detach('--bus', 'other', 'xvda');
}

async function fileBelow(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('below.img', SIZE, SIZE);
  await bench.attach(image, 'xvda');
  t.not((await bench.try('qemu-io -f raw -c "write 0 512" "$1"', image)).status, 0, 'QEMU is kept out');
  t.equal((await bench.list())[0]?.changedOutside, false);
  await bench.sh(`sleep 0.02; ${WRITE}`, image, '5', 'x');
  t.equal((await bench.list())[0]?.changedOutside, true, 'who asks for no lock is found out');
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 0, stderr: /below\.img was changed by somebody else/ });
}

async function copyOnAttach(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('copied.img', SIZE, SIZE);
  await bench.sh('cp "$1" before', image);
  const vbd = await bench.attach(`ram:${image}`, 'xvda');
  await bench.sh(WRITE, vbd, '100', 'ram');
  await bench.sh('cmp "$1" before', image);
  await bench.sh(WRITE, image, '200', 'later');
  await bench.sh(`test "$(${READ})" != later`, vbd, '200', '5');
  await bench.detach('xvda');
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), { usedBytes: 0, images: [] });
}

async function durable(t: Test, bench: Bench): Promise<void> {
  for (const driver of ['aio', 'sync']) {
    const image = await bench.image(`${driver}.img`, SIZE);
    const vbd = await bench.attach(`${driver}:${image}`, 'xvda');
    await bench.sh('dd if=/dev/urandom of=written bs=64k count=16 status=none', vbd);
    await bench.sh('dd if=written of="$1" bs=64k conv=notrunc,fsync status=none', vbd);
    await bench.detach('xvda');
    await bench.sh('cmp written "$1"', image);
  }
  const image = await bench.image('failing.img', SIZE);
  await bench.sh('touch fails');
  const vbd = await bench.attach('--filter', `error=flush@${bench.path('fails')}`, image, 'xvda');
  t.match(await bench.try('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none', vbd), {
    status: 1,
    stderr: /Input\/output error/,
  });
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 1, stderr: /xvda/ }, 'a failed flush is told again');
}

async function order(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('order.img', SIZE), 'xvda');
  const script = `
    for letter in a b; do
      (for i in $(seq 20); do head -c 512 /dev/zero | tr '\\0' $letter | dd of="$1" conv=notrunc status=none; done) &
    done
    wait; head -c 512 "$1" | tr -d '\\n' | fold -w 1 | sort -u`;
  t.match(await bench.sh(script, vbd), /^[ab]$/, 'one or the other, never torn within a sector');
  await bench.detach('xvda');
}

async function fixedSize(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('odd.img', SIZE + 3, SIZE), 'xvda');
  t.not((await bench.try('truncate -s 1M "$1"', vbd)).status, 0, 'another size');
  await bench.sh('cat "$1" > before; : > "$1"; cp /dev/null "$1"; cmp "$1" before', vbd);
  const behind = 'dd if=/dev/zero of="$1" bs=1 seek="$2" count=1 conv=notrunc status=none';
  t.match(await bench.try(behind, vbd, `${SIZE + 3}`), { stderr: /No space left/ });
  t.match(await bench.try('fallocate -l 2M "$1"', vbd), { stderr: /No space left/ });
  t.equal(await bench.sh('stat -c %s "$1"; wc -c < "$1"', vbd), `${SIZE + 3}\n${SIZE + 3}`);
  await bench.detach('xvda');
}

async function sharing(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('shared.img', SIZE);
  await bench.sh('ln -s "$1" symlink.img; ln "$1" hardlink.img', image);
  const table = { r: { r: 0, w: 4, 'w!': 0 }, w: { r: 4, w: 4, 'w!': 0 }, 'w!': { r: 0, w: 4, 'w!': 0 } };
  for (const [held, wanted] of Object.entries(table)) {
    await bench.attach(image, 'xvda', held);
    for (const [mode, status] of Object.entries(wanted)) {
      const path = mode === 'r' ? 'symlink.img' : 'hardlink.img';
      const outcome = await bench.fusetap(['attach', '--bus', 'other', path, 'xvda', mode]);
      t.equal(outcome.status, status, `${mode} where ${held} is held, by ${path}`);
      if (status === 0) await bench.detach('--bus', 'other', 'xvda');
      else t.match(outcome.stderr, /by bus 0 as xvda/, 'and says who has it');
    }
    await bench.detach('xvda');
  }
}

async function busy(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('held.img', SIZE), 'xvda');
  const script = 'exec 3< "$1"; echo held; exec sleep 100';
  const holder = bench.startProgram('sh', ['-c', script, 'sh', vbd]);
  t.teardown(() => holder.kill());
  await new Promise((resolve) => holder.stdout?.once('data', resolve));
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 4, stderr: /in use by (pid )?\d+|in use by .*\d+/ });
  const waiting = bench.detach('xvda', '--wait', '60');
  holder.kill();
  await waiting;
}
