/** Commands of keepers of earlier versions: a server of this version does what they ask for. */
import t from 'tap';
import type { Command } from '../../../mount/server/commands.js';
import { describe, translated } from '../../../mount/server/older-keepers.js';
import { neededFds } from '../../../mount/server/passed-fds.js';

const image = { fd: 20, path: '/img/a.img', sizeBytes: 4096, kind: 'file' as const, identity: '8:1:5' };
const link = { id: 'abc' };
/** as version 0.1.0 sent it */
const attach = {
  ...{ op: 'attach', nodeId: 2, ledgerIndex: 0, name: 'xvda', driver: 'ram', mode: 'w', image: null, memoryFd: 21 },
  ...{ memoryLink: link, state: { sizeBytes: 4096 }, options: { a: 'b' }, filters: [], size: 4096 },
};
const as = (command: object): Command => translated({ command: command as Command });

t.test('attach, of a ram image and of a file', async (t) => {
  t.strictSame(as(attach), {
    ...{ op: 'attach', nodeId: 2, ledgerIndex: 0, name: 'xvda', driver: 'ram', mode: 'w', filters: [], size: 4096 },
    disk: {
      graph: { driver: 'ram', options: { a: 'b' }, on: {} },
      files: {},
      memories: { '': { fd: 21, link, state: { sizeBytes: 4096 } } },
    },
  });
  const { memoryLink: _, ...older } = { ...attach, driver: 'aio', image, memoryFd: null, state: null };
  t.match(as(older), {
    disk: { graph: { driver: 'aio', on: { file: { file: '/img/a.img' } } }, files: { file: image }, memories: {} },
  });
  t.same(neededFds(as(older)), [20]);
});

t.test('the commands that have an attach in them', async (t) => {
  for (const op of ['swap', 'sizeOf', 'resize']) {
    const command = as({ op, attach, facts: {} });
    t.match(command, { op, attach: { disk: { memories: { '': { fd: 21 } } } } });
    t.same(neededFds(command), [21]);
  }
});

t.test('measure and prepare', async (t) => {
  const given = { driver: 'ram', image, options: {} };
  t.match(as({ op: 'measure', ...given }), {
    op: 'measure',
    node: '',
    path: '/img/a.img',
    disk: { files: { file: image } },
  });
  const prepare = as({ op: 'prepare', ...given, memoryFd: 22 });
  t.match(prepare, { op: 'prepare', node: '', memoryFd: 22 });
  t.same(neededFds(prepare), [20, 22]);
});

t.test('describe is answered as before', async (t) => {
  const facts = (driver: string) => describe({ op: 'describe', driver });
  t.same(await facts('aio'), { image: 'required', sharesMemory: false, rawImage: true });
  t.same(await facts('ram'), { image: 'required', sharesMemory: true, rawImage: true });
  t.same(await facts('tar'), { image: 'required', sharesMemory: false, rawImage: false });
  for (const driver of ['vhd', 'vmdk', 'split', 'snapshot']) {
    await t.rejects(facts(driver), { code: 'UNSUPPORTED', message: /the keeper of this bus is older/ });
  }
});

t.test('commands of this version pass unchanged', async (t) => {
  const own = as(attach);
  t.equal(as(own), own);
  t.equal(as({ op: 'ping' }).op, 'ping');
});
