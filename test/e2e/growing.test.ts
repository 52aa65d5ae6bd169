/** An image that its vbd makes larger: that is no change from outside, but others still are. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { emptyImage, GRANULE } from '../drivers/growing/driver.js';
import { type Bus, startBus } from '../survival/bus.js';
import { whyNot } from './fixtures.js';

t.setTimeout(240_000);
const MIB = 1 << 20;
const DRIVER = fileURLToPath(new URL('../drivers/growing/driver.js', import.meta.url));
/** longer than from one look of the bus to the next */
const LOOK_MS = 1500;

interface Stage {
  readonly bus: Bus;
  readonly image: string;
  write(granule: number, count?: number): Promise<void>;
  /** whether the bus says that the image was changed from outside, now and after its next look */
  isChanged(): Promise<boolean>;
}

async function stage(t: Test, directory = ''): Promise<Stage> {
  const bus = await startBus(t);
  const { bench } = bus;
  const image = bench.path(`${directory}grows.img`);
  if (directory !== '') await bench.sh('mkdir "$1" && mount -t tmpfs -o size=1M tmpfs "$1"', bench.path(directory));
  writeFileSync(image, emptyImage(4 * MIB));
  await bus.attach({ driver: DRIVER, image });
  const now = async (): Promise<boolean> => (await bus.info()).vbds[0]?.changedOutside === true;
  return {
    bus,
    image,
    async write(granule, count = 1) {
      const script = 'head -c $((4096 * $3)) /dev/urandom | dd of="$1" bs=4096 seek="$2" conv=notrunc status=none';
      await bench.sh(script, bench.path('runtime/bus/0/xvda'), String(granule), String(count));
    },
    async isChanged() {
      const before = await now();
      await sleep(LOOK_MS);
      return before || (await now());
    },
  };
}

t.test('what the vbd adds is the known size from then on', { skip: whyNot('dd') }, async (t) => {
  const { bus, image, write, isChanged } = await stage(t);
  const { size } = statSync(image);
  await write(10, 20);
  t.equal(statSync(image).size, size + 20 * GRANULE);
  t.equal(await isChanged(), false);
  await bus.killServer();
  await write(100, 5);
  t.equal(await isChanged(), false, 'also with the next server');
  // a writer that does not stop, while the bus looks
  const ended = bus.bench.sh(
    'for i in $(seq 200 700); do dd if=/dev/urandom of="$1" bs=4096 count=1 seek="$i" conv=notrunc status=none; done',
    bus.bench.path('runtime/bus/0/xvda'),
  );
  let isWriting = true;
  void ended.finally(() => {
    isWriting = false;
  });
  let looks = 0;
  for (; isWriting; looks++) t.match(await bus.info(), { vbds: [{ changedOutside: false }] });
  await ended;
  t.ok(looks > 5, `${looks} looks`);
  t.equal(await isChanged(), false);
  t.equal(statSync(image).size, size + 526 * GRANULE);
  await bus.detach('xvda');
});

t.test('a size that the vbd did not make is a change from outside', { skip: whyNot('dd') }, async (t) => {
  const { bus, image, write, isChanged } = await stage(t);
  await write(10, 20);
  t.equal(await isChanged(), false);
  const { size } = statSync(image);
  truncateSync(image, size + GRANULE);
  t.equal(await isChanged(), true, 'larger, and nothing was written through the vbd');
  await write(40);
  t.equal(await isChanged(), true, 'that stays true if the vbd writes later');
  await bus.detach('xvda');

  await bus.attach({ driver: DRIVER, image });
  await write(50);
  t.equal(await isChanged(), false);
  truncateSync(image, statSync(image).size - 1);
  await write(11);
  t.equal(await isChanged(), true, 'smaller, whatever the vbd writes');
});

t.test('a file system that is full fails the write that needs space', { skip: whyNot('dd', 'mount') }, async (t) => {
  const { bus, write, isChanged } = await stage(t, 'full/');
  await write(0, 100);
  await t.rejects(write(100, 300), { message: /No space left on device/ });
  t.equal(await isChanged(), false);
  await write(0, 100);
  t.equal((await bus.info()).restarts, 0);
  await bus.detach('xvda');
});
