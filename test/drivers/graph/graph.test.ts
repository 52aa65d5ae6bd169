/** The tree of a disk as data: paths, parts, what JSON may say, and bounds. */
import fc from 'fast-check';
import t from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import {
  checkGraph,
  DEEPEST,
  describeGraph,
  entriesBelow,
  type FileSpec,
  filesOf,
  isSimple,
  MOST_FILES,
  mainFile,
  mainImage,
  type NodeSpec,
  nodeAt,
  nodesOf,
  parseGraph,
  simpleGraph,
  withBelow,
} from '../../../drivers/graph.js';

const node = (driver: string, on: Record<string, NodeSpec | FileSpec> = {}): NodeSpec => ({ driver, options: {}, on });
const file = (path: string): FileSpec => ({ file: path });
const tree = node('ram', { file: node('vmdk', { file: file('/a.vmdk'), extent0: file('/b.img') }) });

t.test('nodes and files have paths', async (t) => {
  t.same([...nodesOf(tree).keys()], ['', 'file']);
  t.same(
    [...filesOf(tree)],
    [
      ['file/file', '/a.vmdk'],
      ['file/extent0', '/b.img'],
    ],
  );
  t.equal(mainFile(tree), 'file/file');
  t.equal(mainImage(tree), '/a.vmdk');
  t.equal(mainFile(node('nbd')), null);
  t.equal(mainImage(node('concat', { part0: file('/a') })), null);
  t.equal(nodeAt(tree, 'file').driver, 'vmdk');
  t.throws(() => nodeAt(tree, 'file/file'), RangeError);
  t.equal(describeGraph(tree), 'ram:vmdk:/a.vmdk');
  t.equal(describeGraph(node('nbd')), 'nbd');
});

t.test('a tree is simple if driver, image and options can say it', async (t) => {
  t.ok(isSimple(simpleGraph('aio', '/a.img')));
  t.ok(isSimple(simpleGraph('./x.js', null, { a: 'b' })));
  t.notOk(isSimple(tree));
  t.notOk(isSimple(node('concat', { part0: file('/a') })));
});

t.test('a part of the tree, and what belongs to it', async (t) => {
  const more = withBelow(tree, 'file', 'extent1', file('/c.img'));
  t.equal(filesOf(more).get('file/extent1'), '/c.img');
  t.equal(filesOf(tree).size, 2, 'the old tree is as it was');
  t.same(withBelow(node('aio'), '', 'file', file('/a')), simpleGraph('aio', '/a'));
  t.throws(() => withBelow(tree, 'file/file', 'x', file('/a')), RangeError);
  const entries = { '': 0, file: 1, 'file/file': 2, 'file/extent0': 3, fileother: 4 };
  t.same(entriesBelow(entries, 'file'), { '': 1, file: 2, extent0: 3 });
  t.same(entriesBelow(entries, ''), entries);
});

t.test('JSON says where it is wrong', async (t) => {
  const right = {
    driver: 'ram',
    on: { file: { driver: 'vhd', options: { a: 'b' }, on: { file: { file: '/a.vhd' } } } },
  };
  t.same(parseGraph(right), {
    driver: 'ram',
    options: {},
    on: { file: { driver: 'vhd', options: { a: 'b' }, on: { file: { file: '/a.vhd' } } } },
  });
  const wrong: [unknown, RegExp][] = [
    [undefined, /'disk': it is missing/],
    [[], /'disk': it must be an object/],
    [{}, /'disk\.driver'/],
    [{ driver: 5 }, /'disk\.driver'/],
    [{ driver: 'ram', image: '/a' }, /'disk\.image': a node has driver, options and on/],
    [{ driver: 'ram', options: { a: 1 } }, /'disk\.options\.a': it must be text/],
    [{ driver: 'ram', on: { File: {} } }, /'disk\.on\.File'/],
    [{ driver: 'ram', on: { file: { file: 'a.img' } } }, /'disk\.on\.file': .*absolute/],
    [{ driver: 'ram', on: { file: { file: '/a.img', mode: 'r' } } }, /'disk\.on\.file'/],
    [{ driver: 'ram', on: { file: { driver: 'vhd', on: 5 } } }, /'disk\.on\.file\.on': it must be an object/],
    [JSON.parse('{"driver":"ram","__proto__":{}}'), /__proto__/],
  ];
  for (const [value, message] of wrong) t.throws(() => parseGraph(value), { code: 'USAGE', message });
});

t.test('bounds: depth, files, absolute paths', async (t) => {
  const chain = (depth: number): NodeSpec =>
    depth === 1 ? simpleGraph('aio', '/a') : node('ram', { file: chain(depth - 1) });
  checkGraph(chain(DEEPEST));
  t.throws(() => checkGraph(chain(DEEPEST + 1)), { code: 'USAGE', message: /64 drivers deep/ });
  let deep: object = { driver: 'aio' };
  for (let i = 0; i < 50_000; i++) deep = { driver: 'ram', on: { file: deep } };
  t.throws(() => parseGraph(deep), { code: 'USAGE', message: /64 drivers deep/ });
  const wide = (count: number) =>
    node('concat', Object.fromEntries(Array.from({ length: count }, (_, i) => [`part${i}`, file(`/${i}`)])));
  checkGraph(wide(MOST_FILES));
  t.throws(() => checkGraph(wide(MOST_FILES + 1)), { code: 'USAGE', message: /250 files/ });
  t.throws(() => checkGraph(simpleGraph('aio', 'a.img')), { code: 'USAGE', message: /not absolute/ });
});

t.test('any JSON is a tree or one clear error', async (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      try {
        checkGraph(parseGraph(value));
      } catch (error) {
        return error instanceof FusetapError && error.code === 'USAGE' && !error.message.includes('\n');
      }
      return true;
    }),
  );
  t.pass();
});
