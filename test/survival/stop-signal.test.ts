/** A server is stopped by SIGSTOP: within the limit nothing happens, after it the server is replaced. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { whyNot } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';
import { startBus } from './bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

t.setTimeout(60_000);

void t.test('SIGSTOP under fio', { skip: whyNot('fio') }, async (t) => {
  const bus = await startBus(t, { FUSETAP_SILENCE_LIMIT_MS: '3000' });
  const vbd = await bus.attach({ driver: 'aio', image: await bus.bench.image('disk.img', FIO_DISK_BYTES) });
  const fio = new Verifier(bus.bench, vbd.path);
  const first = await bus.serverPid();
  await standStill(first);
  await delay(1_500);
  process.kill(first, 'SIGCONT');
  await delay(3_500);
  t.equal(await bus.serverPid(), first, 'not replaced');
  await standStill(first);
  await bus.settled(1);
  t.not(await bus.serverPid(), first, 'replaced');
  t.match(await bus.log(), /server-silent/);

  // while the keeper is stopped it hears nothing, which must not count against the server
  const { keeperPid, serverPid } = await bus.info();
  await standStill(keeperPid);
  await delay(6_000);
  process.kill(keeperPid as number, 'SIGCONT');
  await delay(3_000);
  t.equal(await bus.serverPid(), serverPid, 'not replaced');
  provesIntact(t, await fio.end(), 'SIGSTOP');
});
