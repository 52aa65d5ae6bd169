import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type AttachWords, attachRequest } from '../../cli/attach-request.js';
import { disksOfWords } from '../../cli/attach-words.js';
import { keepPrivate, privateName } from '../../cli/private-share.js';
import type { BusPlace } from '../../mount/client/index.js';
import { isShareName } from '../../mount/control/share-names.js';
import { type Asked, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

t.test('arguments become the parts of a request', async (t) => {
  const here = process.cwd();
  const cases: [string[], AttachWords, object][] = [
    [['disk.img'], {}, { driver: 'aio', image: join(here, 'disk.img'), vdev: null, mode: 'w' }],
    [['disk.img', 'xvdb', 'w!'], {}, { vdev: 'xvdb', mode: 'w!' }],
    [['tap:ram:/img/c.img,51728,r'], {}, { driver: 'ram', image: '/img/c.img', vdev: 'xvdb', mode: 'r' }],
    [['/dev/loop0,,xvda'], {}, { driver: 'aio', image: '/dev/loop0', vdev: 'xvda', mode: 'w' }],
    [['disk.img'], { readOnly: true }, { mode: 'r' }],
    [['disk.img', 'xvda', 'r'], { readOnly: true }, { mode: 'r' }],
    [[], { image: 'a,b:c.img' }, { driver: 'aio', image: join(here, 'a,b:c.img') }],
    [['xvdc', 'r'], { driver: 'sync', image: '/x/../y' }, { driver: 'sync', image: '/y', vdev: 'xvdc', mode: 'r' }],
    [[], { driver: 'mine' }, { driver: 'mine', image: null }],
    [['x'], { option: ['a=1', 'b=c=d', 'e='] }, { options: { a: '1', b: 'c=d', e: '' } }],
  ];
  for (const [words, options, expected] of cases) {
    const [disk, ...others] = disksOfWords(words, options);
    t.same(others, []);
    t.match(disk?.request, { options: {}, ...expected }, JSON.stringify([words, options]));
  }
});

t.test('several SPECs, each with the vdev and the mode that are given after it', async (t) => {
  const directory = tempDir(t);
  const file = (name: string): string => {
    writeFileSync(join(directory, name), 'x');
    return join(directory, name);
  };
  const [a, b, cut] = [file('a.img'), file('b.img'), file('a,b.img')];
  const disks = (words: string[], options: AttachWords = {}) =>
    disksOfWords(words, options).map(({ request: { image, vdev, mode, driver } }) => [driver, image, vdev, mode]);
  t.same(disks([a, b, `ram:${a}`]), [
    ['aio', a, null, 'w'],
    ['aio', b, null, 'w'],
    ['ram', a, null, 'w'],
  ]);
  t.same(disks([a, 'xvdc', 'r', b, '51728', 'ram:x']), [
    ['aio', a, 'xvdc', 'r'],
    ['aio', b, 'xvdb', 'w'],
    ['ram', join(process.cwd(), 'x'), null, 'w'],
  ]);
  t.same(
    disks([a, 'r', b]),
    [
      ['aio', a, null, 'r'],
      ['aio', b, null, 'w'],
    ],
    'a mode needs no vdev',
  );
  t.same(disks([cut, `ram:${cut}`], { mode: 'r' }), [
    ['aio', cut, null, 'r'],
    ['ram', cut, null, 'r'],
  ]);
  t.same(disks([a], { vdev: 'hda', readOnly: true }), [['aio', a, 'hda', 'r']]);
  t.same(disks(['r'], { image: a }), [['aio', a, null, 'r']]);
});

t.test("devices of Xen's tools are found below /dev", async (t) => {
  const image = (spec: string) => disksOfWords([spec], {})[0]?.request.image;
  t.equal(image('phy:null,xvda,w'), '/dev/null');
  t.equal(image('null,,xvda'), '/dev/null');
  t.equal(image('phy:no-such-device,xvda,w'), join(process.cwd(), 'no-such-device'));
  t.equal(image('package.json,,xvda'), join(process.cwd(), 'package.json'));
  t.equal(image('null,xvda,w'), join(process.cwd(), 'null'), "in xm's form without phy: it is a file");
});

t.test('a descriptor that is not of a file is refused at once', async (t) => {
  const { status, stderr } = await fusetap(tempDir(t), ['attach', '/dev/stdin']);
  t.equal(status, 2);
  t.match(stderr, /^fusetap: \/dev\/stdin is a (pipe|socket): an image is a regular file [^\n]*\n$/);
});

t.test('the ram images of a command can be its own', async (t) => {
  const shares = (words: string[]) => keepPrivate(disksOfWords(words, {}), 'run-1').map(({ request }) => request.share);
  t.same(shares(['ram:./a', 'ram:./b', 'aio:c', 'ram:./a']), ['run-1.1', 'run-1.2', undefined, 'run-1.1']);
  const named = keepPrivate(disksOfWords(['ram:./a'], { share: 'us' }), 'run-1');
  t.match(named, [{ request: { share: 'us' } }]);
  const name = privateName({ name: 'b'.repeat(64) } as BusPlace);
  t.ok(isShareName(`${name}.10`));
  t.not(privateName({ name: '0' } as BusPlace), name);
});

t.test('filters: offset, then sizelimit, then the others in their order', async (t) => {
  const filters = (options: Parameters<typeof attachRequest>[1]) => attachRequest(['x'], options).request.filters;
  t.equal(filters({}), undefined, 'none are not sent: an older bus does not know the word');
  t.same(filters({ filter: ['delay=5', 'read-only', 'error=read:1-2@/a=b'], sizelimit: '5', offset: '1K' }), [
    { name: 'offset', value: '1K' },
    { name: 'sizelimit', value: '5' },
    { name: 'delay', value: '5' },
    { name: 'read-only', value: '' },
    { name: 'error', value: 'read:1-2@/a=b' },
  ]);
});

t.test('relative paths are made absolute, because the bus has another directory', async (t) => {
  const runtime = tempDir(t);
  const path = join(runtime, 'xvda');
  writeFileSync(path, 'x');
  const bus = await fakeBus(t, runtime, '0', busOf(path));
  const words = ['--driver', './mine.js', '--filter', 'error=read@broken', '--filter', 'delay=1@x'];
  t.equal((await fusetap(runtime, ['attach', ...words])).status, 0);
  const filters = [
    { name: 'error', value: `read@${join(process.cwd(), 'broken')}` },
    { name: 'delay', value: '1@x' },
  ];
  t.match(bus.asked, [{ body: { driver: join(process.cwd(), 'mine.js'), filters } }]);
});

/** a bus whose one vbd is the file given */
function busOf(path: string, ended = false): (asked: Asked) => unknown {
  return ({ method }) =>
    method === 'POST' ? { status: 201, body: aVbd({ path }) } : { vbds: [aVbd({ path })], ended };
}

t.test('prints the path of the file, after a byte of it was read', async (t) => {
  const runtime = tempDir(t);
  const path = join(runtime, 'xvda');
  writeFileSync(path, 'x');
  const bus = await fakeBus(t, runtime, '0', busOf(path));
  t.same(await fusetap(runtime, ['attach', 'disk.img']), { status: 0, stdout: `${path}\n`, stderr: '' });
  const body = { driver: 'aio', image: join(process.cwd(), 'disk.img'), vdev: null, mode: 'w', options: {} };
  t.same(bus.asked, [{ method: 'POST', url: '/vbds', body, interface: '1.1' }]);
  t.same(JSON.parse((await fusetap(runtime, ['--json', 'attach', 'x'])).stdout), aVbd({ path }));
});

t.test('a file that cannot be read is detached again', async (t) => {
  const runtime = tempDir(t);
  const empty = join(runtime, 'empty');
  writeFileSync(empty, '');
  mkdirSync(join(runtime, 'directory'));
  const wrong: Record<string, RegExp> = { missing: /ENOENT/, empty: /it is empty/, directory: /EISDIR/ };
  for (const [name, why] of Object.entries(wrong)) {
    const bus = await fakeBus(t, runtime, name, busOf(join(runtime, name)));
    const { status, stdout, stderr } = await fusetap(runtime, ['attach', '--bus', name, 'disk.img']);
    t.equal(status, 1, name);
    t.equal(stdout, '');
    t.match(stderr, why);
    t.match(bus.asked, [{ method: 'POST' }, { method: 'DELETE', url: '/vbds/xvda?force=1' }]);
  }
});

t.test('a refusal of the bus gives its exit status', async (t) => {
  const runtime = tempDir(t);
  const codes = { FAILED: 1, USAGE: 2, NOT_FOUND: 3, BUSY: 4, DENIED: 5, UNSUPPORTED: 6, NO_SPACE: 7 };
  for (const [code, exit] of Object.entries(codes)) {
    await fakeBus(t, runtime, code, () => ({ status: 400, body: { error: { code, message: 'no', hint: 'do this' } } }));
    const { status, stderr } = await fusetap(runtime, ['attach', '--bus', code, 'disk.img']);
    t.equal(status, exit, code);
    t.equal(stderr, 'fusetap: no: do this\n');
  }
});

t.test('an orphaned bus refuses an attach', async (t) => {
  const runtime = tempDir(t);
  const { renameSync } = await import('node:fs');
  const { aBus } = await import('./fake-bus.js');
  const bus = await fakeBus(t, runtime, '0', () => ({ ...aBus('0', [aVbd()]), state: 'orphaned' }));
  renameSync(join(bus.stateDir, 'control.sock'), join(bus.stateDir, 'server.sock'));
  const { status, stderr } = await fusetap(runtime, ['attach', 'disk.img']);
  t.equal(status, 4);
  t.match(stderr, /fusetap stop --bus 0/);
  t.match((await fusetap(runtime, ['ls'])).stdout, /\n0 +xvda/, 'but it can be looked at');
});
