import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync, renameSync } from 'node:fs';
import t from 'tap';
import type { FusetapError } from '../../../../drivers/errors.js';
import type { Mode } from '../../../../mount/images/mode.js';
import { openAgainForWriting } from '../../../../mount/images/open-again.js';
import { identityOf, type OpenedImage } from '../../../../mount/images/open-image.js';
import { type FileWish, Holdings } from '../../../../mount/keeper/vbds/holdings.js';
import { shareFdFrom, tryFlockExclusive } from '../../../../system/libc.js';
import { endChild, makeFile } from '../../host.js';

function wish(path: string, mode: Mode = 'w'): FileWish {
  return { path, mode, ownBus: { mountpoint: '/no/such/bus' }, describePid: () => null };
}

/** whether another process could claim the file for writing now */
async function isFree(path: string): Promise<boolean> {
  const other = new Holdings();
  try {
    await other.file(wish(path));
  } catch (error) {
    if ((error as FusetapError).code !== 'BUSY') throw error;
    return false;
  }
  await other.release();
  return true;
}

function isOpen({ fd, ino }: OpenedImage): boolean {
  try {
    return String(fstatSync(fd, { bigint: true }).ino) === ino;
  } catch {
    return false;
  }
}

t.test('resources are released in reverse order, even after a failure', async (t) => {
  const errors = t.capture(console, 'error', () => {});
  const order: string[] = [];
  const holdings = new Holdings();
  for (const what of ['first', 'second', 'third']) {
    holdings.own(what, () => {
      order.push(what);
      if (what === 'second') throw new Error('it is stuck');
    });
  }
  const released = holdings.release();
  t.same(order, ['third', 'second', 'first'], 'at once');
  t.equal(await released, null);
  t.match(errors(), [{ args: [/second/, { message: 'it is stuck' }] }]);
  await holdings.release();
  t.equal(order.length, 3, 'each of them once');
});

t.test('a file is opened, claimed and released', async (t) => {
  const path = await makeFile(t);
  const holdings = new Holdings();
  const image = await holdings.file(wish(path));
  t.equal(await isFree(path), false);
  t.equal(await holdings.release(), null);
  t.equal(await isFree(path), true);
  t.equal(isOpen(image), false);
});

t.test('a file that is claimed by others is refused', async (t) => {
  const path = await makeFile(t);
  const first = new Holdings();
  const image = await first.file(wish(path));
  const second = new Holdings();
  await t.rejects(second.file(wish(path, 'r')), { code: 'BUSY' });
  t.equal(await second.release(), null);
  t.equal(isOpen(image), true);
  await first.release();
});

t.test('a file that is open already is shared', async (t) => {
  const path = await makeFile(t);
  const first = new Holdings();
  const image = await first.file(wish(path));
  for (const keepsNew of [false, true]) {
    const fresh = new Holdings();
    t.equal((await fresh.file(wish(path), first)).fd, image.fd);
    t.equal((await fresh.file(wish(path))).fd, image.fd, 'twice in one');
    await (keepsNew ? first : fresh).release();
    t.equal(isOpen(image), true);
    t.equal(await isFree(path), false, 'the other holdings still have it');
    if (keepsNew) await fresh.release();
  }
  t.equal(await isFree(path), true);
  t.equal(isOpen(image), false);
});

t.test('a file that a server may still use stays locked until the server closes it', async (t) => {
  const path = await makeFile(t);
  const holdings = new Holdings();
  const told: boolean[] = [];
  holdings.own('a place', (usedByServer) => void told.push(usedByServer));
  const { fd } = await holdings.file(wish(path));
  const server = spawn('sleep', ['600'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
  t.teardown(() => endChild(server));
  await once(server, 'spawn');
  await holdings.release({ usedByServer: true });
  t.same(told, [true]);
  t.equal(await isFree(path), false);
  await endChild(server);
  t.equal(await isFree(path), true);
});

t.test('a file that is read is claimed for writing for a while', async (t) => {
  const path = await makeFile(t);
  const holdings = new Holdings();
  const image = await holdings.file(wish(path, 'r'));
  const held = holdings.find(identityOf(image));
  const open = (): Promise<number> => openAgainForWriting(image, { mountpoint: '/no/such/bus' });
  const raise = () => held?.raise(open, () => false);
  const readable = async (): Promise<boolean> => {
    const other = new Holdings();
    const isFree = await other.file(wish(path, 'r')).then(
      () => true,
      () => false,
    );
    await other.release();
    return isFree;
  };
  t.equal(await readable(), true);
  const raised = await raise();
  t.ok(raised !== undefined && raised.fd !== image.fd && isOpen(raised) && raised.ino === image.ino);
  t.equal(await raise(), raised, 'once');
  t.equal(await readable(), false);
  // as a server that is being loaded has it
  const inherited = shareFdFrom(raised?.fd ?? -1, 64);
  await held?.lower();
  t.equal(await readable(), true);
  t.equal(await isFree(path), false, 'it is read still');
  t.equal(isOpen(image), true);
  closeSync(inherited);
  await raise();
  await holdings.release();
  t.equal(await isFree(path), true, 'all is released together');

  const other = await makeFile(t);
  const moved = await holdings.file(wish(other, 'r'));
  renameSync(other, `${other}.moved`);
  const again = openAgainForWriting(moved, { mountpoint: '/no/such/bus' });
  await t.rejects(again, { code: 'FAILED', message: /was moved, replaced or removed/ });
  await holdings.release();
});

t.test('a file that is released while its claim is raised stays open until that has failed', async (t) => {
  const path = await makeFile(t);
  const holdings = new Holdings();
  const image = await holdings.file(wish(path, 'r'));
  const other = openSync(path, 'r');
  t.ok(tryFlockExclusive(other), 'the claim must wait');
  let raisedFd = -1;
  const open = async (): Promise<number> => {
    raisedFd = openSync(path, 'r+');
    return raisedFd;
  };
  const raising = holdings.find(identityOf(image))?.raise(open, () => false);
  const failed = t.rejects(raising as Promise<unknown>, { code: 'FAILED', message: /was closed meanwhile/ });
  await holdings.release();
  t.equal(isOpen(image), true);
  closeSync(other);
  await failed;
  t.equal(isOpen(image), false);
  t.throws(() => fstatSync(raisedFd), { code: 'EBADF' });
  t.equal(await isFree(path), true);
});
