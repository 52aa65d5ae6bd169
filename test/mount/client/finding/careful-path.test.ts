import { mkdirSync, realpathSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { carefulPath, findFile, type KernelTables } from '../../../../mount/client/finding/careful-path.js';
import type { Loop, Mount } from '../../../../system/proc.js';
import { tempDir } from '../../../cli/fake-bus.js';

const mount = (mountpoint: string, type: string, dev = '0:1'): Mount => ({
  ...{ id: 1, dev, root: '/', mountpoint, type, source: 'x', readOnly: false, owner: null },
});

/** a root that answers from memory, and these mounts on it */
const tables = (mounts: Mount[] = [], loops: Loop[] = []): KernelTables => ({
  mounts: [mount('/', 'ext4', '8:1'), ...mounts],
  loops,
});

function directory(t: Test): string {
  return realpathSync(tempDir(t));
}

t.test('symbolic links are resolved, as realpath(3) does it', (t) => {
  const at = directory(t);
  mkdirSync(join(at, 'real/below'), { recursive: true });
  symlinkSync('real', join(at, 'relative'));
  symlinkSync(join(at, 'relative/below'), join(at, 'absolute'));
  symlinkSync('../../real/below', join(at, 'real/below/up'));
  symlinkSync('circle', join(at, 'circle'));
  for (const name of ['relative/below', 'absolute', 'absolute/up', 'real/./below/../below', 'absolute/up/']) {
    t.equal(carefulPath(join(at, name), tables()), join(at, 'real/below'), name);
  }
  t.equal(carefulPath(join(at, 'absolute/nothing/here'), tables()), join(at, 'real/below/nothing/here'));
  t.equal(carefulPath(join(at, 'circle'), tables()), join(at, 'circle'), 'a circle ends');
  t.equal(carefulPath('/', tables()), '/');
  t.end();
});

t.test('nothing on a mount that may hang is read', (t) => {
  const at = directory(t);
  mkdirSync(join(at, 'bus'));
  mkdirSync(join(at, 'target'));
  symlinkSync(join(at, 'target'), join(at, 'bus/link'));
  const link = join(at, 'bus/link');
  t.equal(carefulPath(link, tables()), join(at, 'target'), 'it is a link');
  for (const type of ['fuse.fusetap', 'nfs4', 'cifs', '9p']) {
    t.equal(carefulPath(link, tables([mount(join(at, 'bus'), type)])), link, type);
  }
  const loop = { path: '/dev/loop0', devs: ['7:0'], backingFile: '/rt/bus/0/xvda', offsetBytes: 0, readOnly: false };
  const bus = mount('/rt/bus/0', 'fuse.fusetap', '0:9');
  const onVbd = mount(join(at, 'bus'), 'ext4', '7:0');
  t.equal(carefulPath(link, tables([bus, onVbd], [loop])), link, 'a file system whose disk is on a bus');
  t.equal(carefulPath(link, tables([onVbd], [loop])), join(at, 'target'), 'a disk that is not');
  t.equal(carefulPath(link, tables([mount(link, 'fuse')])), link, 'a mount point is no link');
  t.end();
});

t.test('the file at a path', async (t) => {
  const at = directory(t);
  const file = join(at, 'a.img');
  writeFileSync(file, '');
  symlinkSync(file, join(at, 'link'));
  const { ino } = statSync(file);
  const own = await findFile(file, tables());
  t.match(own, { identity: new RegExp(`^\\d+:\\d+:${ino}$`), isDirectory: false });
  t.same(await findFile(join(at, 'link'), tables()), own);
  t.match(await findFile(at, tables()), { isDirectory: true });
  t.equal(await findFile(join(at, 'nothing'), tables()), null);
  t.equal(await findFile(at, tables([mount(at, 'fuse.fusetap')])), null, 'a mount point is not asked');
  const slow = tables([mount(at, 'nfs4')]);
  t.same(await findFile(join(at, 'link'), slow), own, 'a child asks a file system that may hang');
  t.equal(await findFile(join(at, 'nothing'), slow), null);
});
