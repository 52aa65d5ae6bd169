/** Disks of several drivers, and snapshots: what commands send to a bus, and what they print of its answers. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type AttachWords, attachRequest } from '../../cli/attach-request.js';
import { disksOfWords } from '../../cli/attach-words.js';
import { diskOf } from '../../cli/disk-tree.js';
import { keepPrivate } from '../../cli/private-share.js';
import { diskLines } from '../../cli/show/disk-lines.js';
import type { NodeSpec } from '../../drivers/graph.js';
import { asSnapshot, describeDisk, hasTree } from '../../mount/client/disk-wish.js';
import type { DiskWish } from '../../mount/control/interface.js';
import { aBus, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

const TREE: NodeSpec = {
  driver: 'snapshot',
  options: {},
  on: { file: { driver: 'tar', options: { member: 'a.img' }, on: { file: { file: '/srv/box.ova' } } } },
};
const PARTS: NodeSpec = {
  driver: 'concat',
  options: {},
  on: { part0: { file: '/srv/a.img' }, part1: { driver: 'vhd', options: {}, on: { file: { file: '/srv/b.vhd' } } } },
};

t.test('specs and options become a tree', async (t) => {
  const disk = (spec: string, options: AttachWords = {}) => {
    const { driver, image, options: own, disk: tree } = attachRequest([spec], options).request;
    return { driver, image, options: own, ...(tree && { tree }) };
  };
  const top = { driver: 'snapshot', image: '/srv/box.ova', options: {} };
  t.same(disk('/srv/a.img'), { driver: 'aio', image: '/srv/a.img', options: {} });
  t.same(disk('vhd:/srv/a.vhd'), { driver: 'vhd', image: '/srv/a.vhd', options: {} }, 'one driver is no tree');
  t.same(disk('snapshot:tar:/srv/box.ova', { option: ['file/member=a.img'] }), { ...top, tree: TREE });
  t.same(disk('tar:/srv/box.ova', { option: ['member=a.img'], snapshot: true }), { ...top, tree: TREE });
  t.same(disk('/srv/a.img', { snapshot: true }), { driver: 'snapshot', image: '/srv/a.img', options: {} });
  t.same(disk('/srv/a.img,xvda,r', { snapshot: true }), {
    ...{ driver: 'snapshot', image: '/srv/a.img', options: {} },
  });
  t.match(attachRequest(['/srv/a.img'], { snapshot: true, backing: 'none' }).request, { mode: 'w', backing: 'none' });
  t.match(attachRequest(['/srv/a.img'], { snapshot: true, readOnly: true }).request, { mode: 'r' });
  const three = diskOf(['ram', 'vhd', 'tar'], '/b', [
    { node: '', name: 'x', value: '1' },
    { node: 'file/file', name: 'member', value: 'm' },
  ]);
  t.match(three, { driver: 'ram', image: '/b', options: { x: '1' } });
  t.match(three.disk?.on.file, {
    driver: 'vhd',
    options: {},
    on: { file: { driver: 'tar', options: { member: 'm' } } },
  });
  t.throws(() => diskOf(['ram', 'vhd'], '/b', [{ node: 'backing', name: 'x', value: '1' }]), {
    code: 'USAGE',
    message: "--option backing/x: the disk has no driver at 'backing'",
    hint: "drivers are at 'file'; an option of ram has no path: --option x=VALUE",
  });
});

t.test('a snapshot is put over any disk', async (t) => {
  const wish: DiskWish = { driver: 'aio', image: '/a', options: {} };
  t.same(asSnapshot(wish), { driver: 'snapshot', image: '/a', options: {} });
  t.match(asSnapshot({ ...wish, options: { odd: '1' } }).disk?.on.file, { driver: 'aio', options: { odd: '1' } });
  t.match(asSnapshot({ ...wish, disk: PARTS, image: null }), {
    driver: 'snapshot',
    image: null,
    disk: { on: { file: PARTS } },
  });
  t.throws(() => asSnapshot({ ...wish, driver: 'ram', share: 'mine' }), { code: 'USAGE', message: /shared as mine/ });
});

t.test('equal copies of one command share their memory, others do not', async (t) => {
  const shares = (words: string[]) => keepPrivate(disksOfWords(words, {}), 'run-1').map(({ request }) => request.share);
  const specs = ['ram:vhd:/a', 'ram:/a', 'ram:vhd:/a', 'ram:tar:/a', 'vhd:/a'];
  t.same(shares(specs), ['run-1.1', 'run-1.2', 'run-1.1', 'run-1.3', undefined]);
});

t.test('a mount joins a vbd with the same drivers and options', async (t) => {
  const simple = { driver: 'tar', image: '/other/path', options: { member: 'a.img' } };
  const asked = TREE.on.file as NodeSpec;
  t.ok(hasTree(simple, asked), 'the image may have another path');
  t.notOk(hasTree({ ...simple, options: {} }, asked));
  t.notOk(hasTree({ ...simple, options: { member: 'b.img' } }, asked));
  t.notOk(hasTree({ driver: 'snapshot', image: '/srv/box.ova', disk: TREE }, asked));
  const vmdk = { driver: 'vmdk', options: {}, on: { file: { file: '/a' } } };
  const found = { ...vmdk, on: { ...vmdk.on, extent0: { file: '/flat' } } };
  t.ok(hasTree({ driver: 'vmdk', image: '/a', disk: found }, vmdk), 'files that the image names are its own');
  t.notOk(hasTree({ driver: 'vmdk', image: '/a' }, found));
});

t.test('attach sends the tree', async (t) => {
  const runtime = tempDir(t);
  const path = join(runtime, 'xvda');
  writeFileSync(path, 'x');
  const bus = await fakeBus(t, runtime, '0', () => ({ status: 201, body: aVbd({ path }) }));
  t.equal((await fusetap(runtime, ['attach', '--snapshot', '--option', 'member=a.img', 'tar:/srv/box.ova'])).status, 0);
  t.same(bus.asked[0]?.body, { disk: TREE, vdev: null, mode: 'w' });
  t.equal((await fusetap(runtime, ['attach', '--snapshot', '--backing', 'any', '/srv/a.img'])).status, 0);
  t.same(bus.asked[1]?.body, {
    driver: 'snapshot',
    image: '/srv/a.img',
    options: {},
    vdev: null,
    mode: 'w',
    backing: 'any',
  });
  t.equal((await fusetap(runtime, ['attach', '--driver', './mine.js', '--image', '/a', '--snapshot'])).status, 0);
  const mine = { driver: join(process.cwd(), 'mine.js'), options: {}, on: { file: { file: '/a' } } };
  t.same(bus.asked[2]?.body, { disk: { driver: 'snapshot', options: {}, on: { file: mine } }, vdev: null, mode: 'w' });
});

t.test('attach --config takes the tree that ls and config print', async (t) => {
  const runtime = tempDir(t);
  const path = join(runtime, 'xvda');
  writeFileSync(path, 'x');
  const vbd = aVbd({ driver: 'snapshot', image: '/srv/box.ova', options: {}, disk: TREE, backing: 'none', path });
  const bus = await fakeBus(t, runtime, '0', ({ method }) =>
    method === 'POST' ? { status: 201, body: vbd } : aBus('0', [vbd]),
  );
  const file = join(runtime, 'disks.json');
  for (const words of [
    ['ls', '--json'],
    ['show', '--json'],
    ['config', '--json'],
  ]) {
    writeFileSync(file, (await fusetap(runtime, words)).stdout);
    bus.asked.length = 0;
    t.match(await fusetap(runtime, ['attach', '--config', file]), { status: 0, stderr: '' }, words.join(' '));
    t.same(bus.asked[0]?.body, { disk: TREE, vdev: 'xvda', mode: 'w', backing: 'none' }, words.join(' '));
  }
  const refused: [object, RegExp][] = [
    [{ disk: TREE, driver: 'aio' }, /driver and disk contradict each other/],
    [{ disk: TREE, image: '/srv/other.ova' }, /image and disk contradict each other/],
    [{ disk: { driver: 'tar', on: { file: { file: 'box.ova' } } } }, /'disk\.on\.file': a file is .* absolute path/],
    [{ disk: { driver: 'tar', member: 'a' } }, /'disk\.member': a node has driver, options and on/],
    [{ disk: 'tar:box.ova' }, /disk cannot be/],
    [{ disks: TREE }, /unknown key of a disk: 'disks'/],
  ];
  for (const [entry, message] of refused) {
    writeFileSync(file, JSON.stringify([entry]));
    t.match(await fusetap(runtime, ['attach', '--config', file]), { status: 2, stderr: message });
  }
});

t.test('ls, show and config of a tree', async (t) => {
  const runtime = tempDir(t);
  const snapshot = aVbd({ driver: 'snapshot', image: '/srv/box.ova', options: {}, disk: TREE });
  const parts = aVbd({ vdev: 'xvdb', slot: 51728, driver: 'concat', image: null, options: {}, disk: PARTS, mode: 'r' });
  await fakeBus(t, runtime, '0', () => aBus('0', [snapshot, parts]));
  t.match(
    (await fusetap(runtime, ['ls'])).stdout,
    /xvda +51712 +snapshot +w .* \/srv\/box\.ova\n.*xvdb +51728 +concat +r .* -\n/,
  );
  const shown = (await fusetap(runtime, ['show', 'xvdb'])).stdout;
  const lines = shown.split('\n').filter((line) => line.startsWith('disk'));
  t.same(
    lines.map((line) => line.slice('transport  '.length)),
    ['concat', '  part0: /srv/a.img', '  part1: vhd', '    file: /srv/b.vhd'],
  );
  t.same(diskLines(TREE), ['snapshot', '  file: tar, member=a.img', '    file: /srv/box.ova']);
  t.equal(describeDisk(snapshot), 'snapshot:tar:/srv/box.ova');
  t.match((await fusetap(runtime, ['show', '--tree'])).stdout, /mode w, snapshot:tar:\/srv\/box\.ova/);
  t.same(await fusetap(runtime, ['config']), {
    status: 2,
    stdout: 'format=raw, vdev=xvda, access=rw, target=snapshot:tar:/srv/box.ova\n',
    stderr:
      'fusetap: xvda of bus 0: a line of xl cannot carry --option file/member=a.img: fusetap ls --json prints all of it, ' +
      'and fusetap attach --config takes that\n' +
      'fusetap: xvdb of bus 0: a line of xl cannot say a disk of concat, which has several images: fusetap ls --json prints ' +
      'all of it, and fusetap attach --config takes that\n',
  });
  const json = await fusetap(runtime, ['config', '--json']);
  t.match(json, { status: 0, stderr: '' });
  t.same(JSON.parse(json.stdout), [
    { disk: TREE, vdev: 'xvda', mode: 'w' },
    { disk: PARTS, vdev: 'xvdb', mode: 'r' },
  ]);
});

t.test('diff asks until there is no more', async (t) => {
  const runtime = tempDir(t);
  const all = [
    { offset: 0, length: 4096, kind: 'data' },
    { offset: 8192, length: 8192, kind: 'zeros' },
    { offset: 65536, length: 4096, kind: 'data' },
  ];
  const answers: Record<string, unknown> = {
    '/vbds/xvda/changes?offset=0': { changes: all.slice(0, 2), next: 16384 },
    '/vbds/xvda/changes?offset=16384': { changes: all.slice(2), next: 69632 },
    '/vbds/xvda/changes?offset=69632': { changes: [], next: null },
  };
  const bus = await fakeBus(t, runtime, '0', ({ url }) => answers[url] ?? aBus('0', [aVbd({ driver: 'snapshot' })]));
  t.same(await fusetap(runtime, ['diff', 'xvda']), {
    status: 0,
    stdout: '0 4096 data\n8192 8192 zeros\n65536 4096 data\ntotal 16384 (16K): 8192 data, 8192 zeros\n',
    stderr: '',
  });
  t.equal(bus.asked.filter(({ url }) => url.includes('changes')).length, 3);
  const json = JSON.parse((await fusetap(runtime, ['diff', '--json', '/srv/disk.img'])).stdout);
  t.same(json, { bus: '0', vdev: 'xvda', size: 1_572_864, dataBytes: 8192, zerosBytes: 8192, changes: all });
});

t.test('diff of a vbd without a base, and of an older bus', async (t) => {
  const runtime = tempDir(t);
  const answer = (code: string, message: string) => ({
    status: 400,
    body: { error: { code, message, hint: 'do this' } },
  });
  const none = answer('UNSUPPORTED', 'xvda is not a snapshot: there is no base');
  await fakeBus(t, runtime, '0', ({ url }) => (url.includes('changes') ? none : aBus('0', [aVbd()])));
  t.match(await fusetap(runtime, ['diff', 'xvda']), {
    status: 6,
    stdout: '',
    stderr: /^fusetap: xvda is not a snapshot[^\n]+\n$/,
  });
  const older = answer('NOT_FOUND', 'a vbd has no changes');
  await fakeBus(t, runtime, 'old', ({ url }) =>
    url.includes('changes') ? older : aBus('old', [aVbd({ bus: 'old' })]),
  );
  t.match(await fusetap(runtime, ['diff', '--bus', 'old', 'xvda']), {
    status: 6,
    stderr: /bus old was started by an older fusetap/,
  });
});

t.test('map asks until there is no more, and joins what goes on', async (t) => {
  const runtime = tempDir(t);
  const facts = { depth: 0, present: true, zero: false, data: true, compressed: false };
  const inFile = { ...facts, filename: '/srv/disk.img' };
  const nowhere = { ...facts, offset: null, filename: null };
  const answers: Record<string, unknown> = {
    '/vbds/xvda/map?offset=0': {
      extents: [{ start: 0, length: 4096, offset: 512, ...inFile }],
      next: 4096,
    },
    '/vbds/xvda/map?offset=4096': {
      extents: [
        { start: 4096, length: 4096, offset: 4608, ...inFile },
        { start: 8192, length: 512, ...nowhere, depth: 1, compressed: true },
        { start: 8704, length: 512, ...nowhere, depth: 12, zero: true, data: false },
      ],
      next: 9216,
    },
    '/vbds/xvda/map?offset=9216': {
      extents: [
        { start: 9216, length: 512, ...inFile, zero: true, offset: 1_000_000 },
        { start: 9728, length: 512, ...nowhere, present: false, zero: true, data: false },
      ],
      next: null,
    },
  };
  const bus = await fakeBus(t, runtime, '0', ({ url }) => answers[url] ?? aBus('0', [aVbd({ driver: 'qcow2' })]));
  t.same(await fusetap(runtime, ['map', 'xvda']), {
    status: 0,
    stdout: [
      'START  LENGTH  DEPTH  KIND         OFFSET  FILE',
      '    0    8192      0  data            512  /srv/disk.img',
      ' 8192     512      1  compressed        -  -',
      ' 8704     512     12  zeros             -  -',
      ' 9216     512      0  allocated   1000000  /srv/disk.img',
      ' 9728     512      0  absent            -  -',
      '',
    ].join('\n'),
    stderr: '',
  });
  t.equal(bus.asked.filter(({ url }) => url.includes('map')).length, 3);
  // by the path of its image; what is not known is left out, as qemu-img does
  const json = JSON.parse((await fusetap(runtime, ['map', '--json', '/srv/disk.img'])).stdout);
  t.same(json.slice(0, 2), [
    { start: 0, length: 8192, ...facts, offset: 512, filename: '/srv/disk.img' },
    { start: 8192, length: 512, ...facts, depth: 1, compressed: true },
  ]);
  t.equal(json.length, 5);
});

t.test('map of an older bus, and of an image that no bus has', async (t) => {
  const runtime = tempDir(t);
  const older = { status: 404, body: { error: { code: 'NOT_FOUND', message: 'a vbd has no map' } } };
  await fakeBus(t, runtime, '0', ({ url }) => (url.includes('map') ? older : aBus('0', [aVbd()])));
  t.match(await fusetap(runtime, ['map', 'xvda']), { status: 6, stderr: /bus 0 was started by an older fusetap/ });
  const image = join(tempDir(t), 'a.img');
  writeFileSync(image, Buffer.alloc(1 << 20, 'a'));
  t.match(await fusetap(runtime, ['map', image]), {
    status: 0,
    stdout: /\n {4}0 {2}1048576 {6}0 {2}data {7}0 {2}.*a\.img\n$/,
  });
  t.match(await fusetap(runtime, ['map', 'xvdz']), { status: 3, stderr: /no such vbd: 'xvdz' on bus 0/ });
  t.match(await fusetap(runtime, ['map', '--bus', '0', image]), { status: 3, stderr: /no such vbd/ });
});

t.test('commit prints the base, and remarks beside it', async (t) => {
  const runtime = tempDir(t);
  const result = { base: '/srv/golden.img', notes: ['/srv/golden.img: it was repaired'] };
  const bus = await fakeBus(t, runtime, '0', ({ url }) => (url.endsWith('/commit') ? result : aBus('0', [aVbd()])));
  const told = { status: 0, stdout: '/srv/golden.img\n', stderr: 'fusetap: /srv/golden.img: it was repaired\n' };
  t.same(await fusetap(runtime, ['commit', 'xvda']), told);
  t.same(await fusetap(runtime, ['commit', '--quiet', '/srv/disk.img']), { ...told, stderr: '' });
  t.same(JSON.parse((await fusetap(runtime, ['commit', '--json', 'xvda'])).stdout), { base: '/srv/golden.img' });
  const asked = bus.asked.filter(({ url }) => url.includes('commit'));
  t.match(asked, Array(3).fill({ method: 'POST', url: '/vbds/xvda/commit' }));
  const older = { status: 400, body: { error: { code: 'NOT_FOUND', message: 'a vbd has no commit' } } };
  await fakeBus(t, runtime, 'old', ({ url }) => (url.includes('commit') ? older : aBus('old', [aVbd({ bus: 'old' })])));
  const refused = { status: 6, stdout: '', stderr: /bus old was started by an older fusetap/ };
  t.match(await fusetap(runtime, ['commit', '--bus', 'old', 'xvda']), refused);
});
