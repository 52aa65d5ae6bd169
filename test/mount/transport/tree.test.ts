/** Which files there are, and when the kernel holds none of their references any more. */
import t from 'tap';
import { Tree } from '../../../mount/transport/tree.js';
import { plainDisk } from '../fuse/dispatch-fixture.js';

function makeTree(): { tree: Tree; add: (nodeId: number, name: string, inherited?: boolean) => void } {
  const tree = new Tree();
  const disk = plainDisk(Buffer.alloc(1));
  const add = (nodeId: number, name: string, inherited = false): void =>
    tree.add({ nodeId, ledgerIndex: 0, flushIndex: 0, name, disk, inherited, backingId: null });
  return { tree, add };
}

t.test('files are found by node id and by name until they are removed', async (t) => {
  const { tree, add } = makeTree();
  add(2, 'xvda');
  t.equal(tree.byId(2)?.file.name, 'xvda');
  t.equal(tree.byName('xvda')?.file.nodeId, 2);
  t.equal(tree.byName('toString'), undefined);
  tree.remove(2);
  tree.remove(2);
  t.equal(tree.byId(2), undefined);
  t.equal(tree.byName('xvda'), undefined);
});

t.test('a name that was given again stays when its first holder goes', async (t) => {
  const { tree, add } = makeTree();
  add(2, 'xvda');
  add(3, 'xvda');
  t.equal(tree.byName('xvda')?.file.nodeId, 3);
  tree.remove(2);
  t.equal(tree.byName('xvda')?.file.nodeId, 3);
});

t.test('listings go by node id and skip what is leaving', async (t) => {
  const { tree, add } = makeTree();
  for (const nodeId of [9, 2, 5]) add(nodeId, `file${nodeId}`);
  const ids = (cursor: number) => tree.after(cursor).map(({ file }) => file.nodeId);
  t.strictSame(ids(0), [2, 5, 9]);
  t.strictSame(ids(2), [5, 9]);
  t.strictSame(ids(9), []);
  const node = tree.byId(5);
  if (node) node.leaving = true;
  t.strictSame(ids(0), [2, 9]);
});

t.test('forgotten is who has given back every lookup', async (t) => {
  const { tree, add } = makeTree();
  add(2, 'xvda');
  const node = tree.byId(2);
  t.ok(node);
  if (node === undefined) return;
  node.lookups = 3;
  t.equal(tree.forget(2, 2), false);
  t.equal(tree.forget(2, 1), true);
  node.lookups = 1;
  t.equal(tree.forget(2, 2 ** 63), true, 'more than there were');
  t.equal(node.lookups, 0);
  t.equal(tree.forget(77, 1), false, 'a node nobody knows');
});

t.test('of a file of an earlier server the count is not known: any FORGET is the last', async (t) => {
  const { tree, add } = makeTree();
  add(2, 'xvda', true);
  const node = tree.byId(2);
  t.not(node?.lookups, 0, 'somebody may hold it');
  if (node) node.lookups += 1;
  t.equal(tree.forget(2, 5), true);
  t.equal(node?.lookups, 0);
});
