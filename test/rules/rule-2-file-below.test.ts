/** Rule 2: while an image is attached for writing, nobody else may write it; a violation is reported. */
import t, { type Test } from 'tap';
import { attachFor, type Ground, O_RDWR, prepareGround, whyNotRules } from './fixture.js';

t.setTimeout(60_000);

const SIZE = 1 << 20;

void t.test('rule 2: the file below belongs to the vbd', { skip: whyNotRules('qemu-img') }, async (t) => {
  const ground = await prepareGround(t);
  await t.test('QEMU keeps away, with -U too; the vbd can be read', (t) => readTheVbd(t, ground));
  for (const [how, script] of Object.entries(CHANGES)) {
    await t.test(`a change is reported: ${how}`, (t) => tellChange(t, ground, script));
  }
});

/** What a program that ignores locks can do to the image `$1`. */
const CHANGES = {
  'it grew': 'truncate -s +4096 "$1"',
  'it shrank': 'truncate -s -4096 "$1"',
  'it was removed': 'rm "$1"',
  'it was replaced, as editors and rsync do': 'cp "$1" "$1.new"; mv "$1.new" "$1"',
  'it was moved away': 'mv "$1" "$1.old"',
};

async function readTheVbd(t: Test, { bench, a }: Ground): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  await bench.sh('cp "$1" before.img', image);
  const { path } = await attachFor(t, a, { driver: 'aio', image });
  for (const option of ['', '-U']) {
    const { status, stderr } = await bench.try(`qemu-img convert ${option} -O raw "$1" out.img`, image);
    t.equal(status, 1, `qemu-img convert ${option}`);
    t.match(stderr, /Failed to get .*lock/);
  }
  await bench.sh('qemu-img convert -f raw -O raw "$1" out.img; cmp out.img before.img', path);
}

async function tellChange(t: Test, { bench, a, caller }: Ground, script: string): Promise<void> {
  const image = await bench.image('changed.img', SIZE, SIZE);
  const { path, vdev } = await a.attach({ driver: 'aio', image });
  const fd = await caller.open(path, O_RDWR);
  // what is done through the vbd is no change from outside
  t.equal(await caller.call('pwrite', fd, 4096, Buffer.alloc(4096, 1)), 4096);
  const show = async (): Promise<{ changedOutside: boolean }> =>
    JSON.parse(await bench.succeed(['show', '--bus', 'a', vdev, '--json']));
  t.match(await show(), { changedOutside: false });
  await bench.sh(script, image);
  t.match(await show(), { changedOutside: true }, 'show');
  t.match(await a.info(), { vbds: [{ changedOutside: true }] }, 'ls');
  t.equal(await caller.call('pwrite', fd, 0, Buffer.from('on')), 2, 'the vbd goes on');
  await caller.call('close', fd);
  t.match(await a.detach(vdev, '?wait=5'), { vbds: [{ changedOutside: true }] }, 'detach');
}
