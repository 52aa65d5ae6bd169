/** Rule 3: a ram vbd is the file as it was at the first attach, until the last detach; nothing is written to the file. */
import { stat } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { attachFor, type Ground, O_RDWR, prepareGround, refusalOf, whyNotRules } from './fixture.js';

t.setTimeout(60_000);

const SIZE = (1 << 20) + 1300;

void t.test('rule 3: ram is a copy', { skip: whyNotRules('cmp') }, async (t) => {
  const ground = await prepareGround(t);
  for (const passthrough of ['on', 'off'] as const) {
    await t.test(`passthrough ${passthrough}`, (t) => keepApart(t, ground, passthrough));
  }
  await t.test('no copy is made of what somebody writes', (t) => refuseWhileWritten(t, ground));
});

async function keepApart(t: Test, { bench, a, b, caller }: Ground, passthrough: 'on' | 'off'): Promise<void> {
  const image = await bench.image(`golden-${passthrough}.img`, SIZE, SIZE);
  await bench.sh('cp "$1" before.img', image);
  const wish = { driver: 'ram', image, passthrough };
  const first = await a.attach(wish);
  const { mtimeMs, blocks } = await stat(image);
  const fd = await caller.open(first.path, O_RDWR);
  t.equal(await caller.call('pwrite', fd, 100, Buffer.from('only in memory')), 14);
  t.equal(await caller.call('fallocate', fd, 3, 8192, 65_536), 0);
  t.equal(await caller.call('fsync', fd), null);
  await bench.sh('cmp "$1" before.img', image);
  t.match(await stat(image), { mtimeMs, blocks }, 'nothing was written to the file');

  await bench.sh('printf "only in the file" | dd of="$1" bs=1 seek=500000 conv=notrunc status=none', image);
  t.same(await caller.call('pread', fd, 500_000, 16), patternBytes(500_000, 16, 1), 'the file is not looked at again');
  const second = await b.attach(wish);
  const other = await caller.open(second.path, O_RDWR);
  t.same(await caller.call('pread', other, 500_000, 16), patternBytes(500_000, 16, 1), 'nor by who comes later');
  t.same(await caller.call('pread', other, 100, 14), Buffer.from('only in memory'), 'who shares the memory');

  await caller.call('close', fd);
  await a.detach(first.vdev, '?wait=5');
  t.same(await caller.call('pread', other, 100, 14), Buffer.from('only in memory'), 'which lives with its last vbd');
  await caller.call('close', other);
  await bench.sh('cat "$1" > memory', second.path);
  if (passthrough === 'off') {
    await bench.succeed(['save', '--bus', 'b', second.vdev, bench.path('saved.img')]);
    await bench.sh('cmp saved.img memory; rm saved.img');
  }
  await b.detach(second.vdev, '?wait=5');

  const fresh = await attachFor(t, a, wish);
  await bench.sh('cmp "$1" "$2"; ! cmp -s "$1" memory', fresh.path, image);
  t.pass('and is gone with it: the next is a copy of the file as it is now');
}

async function refuseWhileWritten(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('written.img', SIZE, SIZE);
  const copy = { driver: 'ram', image };
  const writer = await a.attach({ driver: 'aio', image });
  t.match(await refusalOf(b.attach(copy)), { code: 'BUSY', message: /mode w by bus a as/ });
  await a.detach(writer.vdev);
  const memory = await attachFor(t, b, copy);
  const again = await attachFor(t, a, { driver: 'aio', image });
  t.ok(again.path, 'once copied, the file is free');
  const joined = await refusalOf(b.attach(copy).then(({ vdev }) => b.detach(vdev)));
  t.equal(joined, null, `and who joins ${memory.vdev} copies nothing`);
}
