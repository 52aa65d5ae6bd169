import t from 'tap';
import { busTree } from '../../cli/show/bus-tree.js';
import { chainBranch } from '../../cli/show/disk-chain.js';
import { type Branch, drawTree, linesFor } from '../../cli/show/tree.js';
import type { NodeSpec } from '../../drivers/graph.js';
import type { VbdAbove } from '../../mount/client/finding/above.js';
import { aBus, aVbd } from './fake-bus.js';

const leaf = (text: string, ...below: Branch[]): Branch => ({ text, below });

t.test('lines that the locale can show', (t) => {
  const tree = leaf('a', leaf('b', leaf('c')), leaf('d', leaf('e')));
  const utf8 = linesFor({ LANG: 'en_GB.UTF-8' });
  t.same(drawTree(tree, utf8), ['a', '├─b', '│ └─c', '└─d', '  └─e']);
  t.same(drawTree(tree, linesFor({})), ['a', '|-b', '| `-c', '`-d', '  `-e']);
  t.equal(linesFor({ LC_ALL: 'C', LANG: 'en_GB.UTF-8' }), linesFor({}), 'LC_ALL comes first');
  t.equal(linesFor({ LC_ALL: '', LC_CTYPE: 'C.utf8' }), utf8);
  t.end();
});

t.test('a bus with all that can be on it', (t) => {
  const none = { loops: [], mounts: [] };
  const partition = { vdev: 'xvda1', path: '/b/xvda1', slot: 1, offset: 0, size: 1024, opens: 1, name: null };
  const vbds: VbdAbove[] = [
    {
      ...aVbd({ path: '/b/xvda' }),
      ...{ loops: ['/dev/loop0'], mounts: ['/mnt'] },
      partitions: [{ ...partition, type: '83', typeName: 'Linux', loops: ['/dev/loop0'], mounts: ['/mnt'] }],
    },
    { ...aVbd({ path: '/b/xvdb', vdev: 'xvdb', image: null, state: 'paused' }), ...none, partitions: null },
    { ...aVbd({ path: '/b/xvdc', vdev: 'xvdc' }), ...none, mounts: ['/fuse'], partitions: null },
    { ...aVbd({ path: '/b/xvdd', vdev: 'xvdd' }), ...none, partitions: null },
  ];
  const users = new Map([
    ['/b/xvda1', [{ loop: '/dev/loop0', mount: '/mnt' }]],
    ['/b/xvda', []],
    [
      '/b/xvdb',
      [
        { pid: 7, command: 'node', bus: 'two', vdev: 'xvda' },
        { pid: 8, command: 'node', bus: 'two', vdev: 'xvda' },
      ],
    ],
    ['/b/xvdc', [{ pid: 9, command: 'fuse2fs' }]],
  ]);
  const bus = { ...aBus('0', []), version: { keeper: '1.0.0', server: null } };
  t.equal(
    `\n${drawTree(busTree(bus, vbds, users), linesFor({})).join('\n')}\n`,
    `
bus 0, running, /run/fusetap/bus/0
|-keeper 1, version 1.0.0
|-server 2
|-xvda, 1.5M, mode w, aio:/srv/disk.img
| \`-xvda1, 1K, Linux
|   \`-/dev/loop0
|     \`-mounted on /mnt
|-xvdb, 1.5M, mode w, paused, aio
| \`-bus two as xvda
|-xvdc, 1.5M, mode w, aio:/srv/disk.img
| |-mounted on /fuse
| \`-pid 9 (fuse2fs)
\`-xvdd, 1.5M, mode w, aio:/srv/disk.img
  \`-its users are not known: the files of the bus do not answer
`,
  );
  t.end();
});

t.test('a chain is a list, however long it is', (t) => {
  const file = (path: string) => ({ file: path });
  let disk: NodeSpec = { driver: 'vhd', options: {}, on: { file: file('/img/base/29.vhd') } };
  for (let at = 28; at >= 0; at--) {
    disk = { driver: 'vhd', options: {}, on: { file: file(`/img/${at}.vhd`), backing: disk } };
  }
  const lines = drawTree(chainBranch(disk) ?? leaf(''), linesFor({}));
  t.equal(lines.length, 31);
  t.same(lines.slice(0, 3), ['30 images', '|-0 vhd /img/0.vhd', '|-1 vhd 1.vhd']);
  t.equal(lines.at(-1), '`-29 vhd /img/base/29.vhd', 'a name in another directory is a path');
  t.ok(
    lines.every((line) => line.length < 30),
    'it does not grow to the right',
  );
  t.end();
});

t.test('all that a disk is made of', (t) => {
  const pieces = {
    driver: 'split',
    options: {},
    on: { file: { file: '/img/a.001' }, file2: { file: '/img/a.002' } },
  };
  const disk: NodeSpec = {
    driver: 'snapshot',
    options: {},
    on: {
      file: {
        driver: 'qcow2',
        options: { snapshot: 'one' },
        on: { file: pieces, backing: { file: '/base/b.img' } },
      },
    },
  };
  t.same(drawTree(chainBranch(disk) ?? leaf(''), linesFor({})), [
    '3 images',
    '|-0 snapshot',
    '|-1 qcow2, snapshot=one',
    '| `-file: split /img/a.001',
    '|   `-file2: a.002',
    '`-2 aio /base/b.img',
  ]);
  const over = {
    driver: 'ram',
    options: {},
    on: { file: { driver: 'vhd', options: {}, on: { file: { file: '/a' } } } },
  };
  t.same(drawTree(chainBranch(over) ?? leaf(''), linesFor({})), ['image', '`-ram', '  `-file: vhd /a']);
  t.equal(chainBranch({ driver: 'aio', options: {}, on: { file: { file: '/a' } } }), null, 'a line says it');
  t.end();
});
