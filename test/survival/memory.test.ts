/** The memory that the two processes of a bus use, with one vbd and with hundreds. */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { pssBytes } from '../../scripts/lib/bench/processes.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';

t.setTimeout(300_000);

const MB = 1e6;
const LIMIT_BYTES = 105 * MB;
const LIMIT_PER_VBD_BYTES = 100_000;
const VBDS = 500;

/** The memory of keeper and server together (PSS), when the reading threads have loaded. */
async function cost(bus: Bus): Promise<number> {
  const { keeperPid, serverPid } = await bus.info();
  const bytes = await pssBytes([keeperPid as number, serverPid as number]);
  if (bytes === null) throw new Error('a process has gone');
  return bytes;
}

async function threads(bus: Bus): Promise<string> {
  return (await readFile(`/proc/${await bus.serverPid()}/status`, 'utf8')).match(/Threads:\t(\d+)/)?.[1] ?? '?';
}

void t.test('memory', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t);
  await bus.attach({ driver: 'aio', image: await bus.bench.image('0.img', 1 << 20) });
  await delay(2_000);
  const one = await cost(bus);
  t.comment(`one vbd: ${Math.round(one / MB)} MB, ${await threads(bus)} threads in the server`);
  t.ok(one <= LIMIT_BYTES, `one vbd: ${Math.round(one / MB)} MB`);

  const images = await Promise.all(
    Array.from({ length: VBDS - 1 }, (_, i) => bus.bench.image(`${i + 1}.img`, 4096, 8)),
  );
  const begun = performance.now();
  for (const [i, image] of images.entries()) await bus.attach({ driver: 'aio', image, vdev: `xvd${name(i + 1)}` });
  t.comment(`${VBDS - 1} attaches: ${Math.round(performance.now() - begun)} ms`);
  const many = await cost(bus);
  const each = (many - one) / (VBDS - 1);
  t.ok(each <= LIMIT_PER_VBD_BYTES, `each more: ${Math.round(each / 1000)} KB`);
  const { vbds } = await bus.info();
  t.equal(vbds.length, VBDS);
  t.equal(await bus.bench.sh('cd "$1"; head -qc 8 xvd* | wc -c', bus.place.path), String(VBDS * 8), 'all are served');
  await bus.killServer();
  t.equal(await bus.bench.sh('cd "$1"; head -qc 8 xvd* | wc -c', bus.place.path), String(VBDS * 8), 'and by the next');
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), [], 'nothing is left');
});

void t.test('threads for requests that wait are loaded when all threads wait', { skip: whyNot('fio') }, async (t) => {
  const bus = await startBus(t);
  const { path } = await bus.attach({ driver: 'sync', image: await bus.bench.image('0.img', 4 << 20) });
  await delay(1_500);
  const first = Number(await threads(bus));
  await delay(1_500);
  t.equal(Number(await threads(bus)), first, 'none is loaded without need');
  // each write waits for the disk
  const words = [
    '--ioengine=psync',
    '--rw=randwrite',
    '--bs=4k',
    '--numjobs=4',
    '--time_based',
    '--runtime=4',
    '--thread',
  ];
  await bus.bench.sh('fio --name=x --filename="$@"', path, ...words);
  t.ok(Number(await threads(bus)) > first, `${first} threads became ${await threads(bus)}`);
  await bus.bench.succeed(['stop']);
});

/** a, b, … z, aa, ab, … */
function name(index: number): string {
  const last = String.fromCharCode(97 + (index % 26));
  return index < 26 ? last : name(Math.floor(index / 26) - 1) + last;
}
