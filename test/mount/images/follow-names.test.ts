/** Names of files inside images: what the policies allow, and that nothing else is looked up. */
import t from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import { type NodeSpec, simpleGraph, withBelow } from '../../../drivers/graph.js';
import { addNamedFile } from '../../../mount/images/follow-names.js';
import type { NamePolicy } from '../../../mount/images/named-file.js';
import type { OpenedImage } from '../../../mount/images/open-image.js';

function open(path: string, ino = '1'): { image: OpenedImage } {
  const rest = { sizeBytes: 1, bornNs: '0', modifiedMs: 0, rdev: null, fileSystem: 'ext4' };
  const image: OpenedImage = { fd: 5, path, realPath: path, kind: 'file', dev: '8:1', ino, ...rest };
  return { image };
}

const GRAPH = simpleGraph('vmdk', '/img/a.vmdk');
const FILES = new Map([['file', open('/img/a.vmdk')]]);
const need = (name: string, driver = 'aio') => ({ node: '', role: 'extent0', name, driver });
const add = (name: string, policy: NamePolicy = 'same-directory') =>
  addNamedFile({ graph: GRAPH, files: FILES }, need(name), policy);

t.test('a name is a path from the directory of the file that has it', async (t) => {
  t.match(add('a-flat.vmdk'), { name: '/img/a-flat.vmdk', path: 'extent0', below: '/img' });
  t.match(add('sub/./x/../b.img'), { name: '/img/sub/b.img' });
  t.match(add('/img/c.img'), { name: '/img/c.img' });
  t.match(add('./a:b'), { name: '/img/a:b' }, 'a colon after the first slash');
  t.match(add('sub/nbd:b'), { name: '/img/sub/nbd:b' });
  t.match(add('../other/d.img', 'any'), { name: '/other/d.img', below: undefined });
  t.match(add('/etc/x', 'any'), { name: '/etc/x' });
  t.same(add('b.img').graph, withBelow(GRAPH, '', 'extent0', { file: '/img/b.img' }));
  const low = addNamedFile({ graph: GRAPH, files: FILES }, need('b.img', 'sync'), 'any');
  t.match(low, { path: 'extent0/file', graph: { on: { extent0: { driver: 'sync' } } } });
});

t.test('everything else is refused with one line that names the image', async (t) => {
  const refused: [string, NamePolicy, RegExp][] = [
    ['/etc/shadow', 'same-directory', /not below/],
    ['../a.img', 'same-directory', /not below/],
    ['x/../../a.img', 'same-directory', /not below/],
    ['/img/../etc/shadow', 'same-directory', /not below/],
    ['/imgother/a', 'same-directory', /not below/],
    ['..', 'same-directory', /not below/],
    ['', 'any', /no path/],
    ['a\0b', 'any', /no path/],
    ['a\nb', 'any', /no path/],
    ['x'.repeat(5000), 'any', /no path/],
    ['nbd://host/x', 'any', /protocol/],
    ['json:{}', 'any', /protocol/],
    ['json:{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}', 'any', /protocol/],
    ['fat:rw:/etc', 'any', /protocol/],
    ['file:b.img', 'any', /protocol/],
    ['file:///img/b.img', 'any', /protocol/],
    ['FILE:b.img', 'any', /protocol/],
    ['1:b', 'any', /protocol/],
    [':b', 'any', /protocol/],
    ['b c:d', 'any', /protocol/],
    ['a.img', 'none', /--backing none/],
  ];
  for (const [name, policy, message] of refused) {
    const error = t.throws(() => add(name, policy), { code: 'DENIED', message, hint: /./ }, name.slice(0, 30));
    if (!(error instanceof FusetapError)) continue;
    t.match(error.message, /^\/img\/a\.vmdk names the file/);
    t.notMatch(error.message, /\n/);
    t.ok(error.message.length < 500);
  }
});

t.test('a file below itself is known by its identity', async (t) => {
  const same = add('b.img');
  t.throws(() => same.refuseCircle(open('/img/b.img').image), { code: 'USAGE', message: /below itself/ });
  same.refuseCircle(open('/img/b.img', '2').image);
  const deep: NodeSpec = { driver: 'ram', options: {}, on: { file: GRAPH } };
  const files = new Map([['file/file', open('/img/a.vmdk')]]);
  const low = addNamedFile({ graph: deep, files }, { ...need('b.img'), node: 'file' }, 'any');
  t.equal(low.path, 'file/extent0');
  t.throws(() => low.refuseCircle(open('/img/c.img').image), { message: /below itself/ });
});

t.test('a chain that is too deep is refused before the next file is opened', async (t) => {
  let graph = GRAPH;
  const files = new Map(FILES);
  let at = '';
  const descend = (): void => {
    const added = addNamedFile(
      { graph, files },
      { node: at, role: 'extent0', name: `${at.length}.img`, driver: 'sync' },
      'any',
    );
    graph = added.graph;
    files.set(added.path, open(added.name, String(at.length + 5)));
    at = at === '' ? 'extent0' : `${at}/extent0`;
  };
  t.throws(
    () => {
      for (let i = 0; i < 70; i++) descend();
    },
    { code: 'USAGE', message: /64 drivers deep/ },
  );
});
