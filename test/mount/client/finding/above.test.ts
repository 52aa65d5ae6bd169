import t from 'tap';
import { aboveFile, loopOfNode, withAbove } from '../../../../mount/client/finding/above.js';
import type { KernelTables } from '../../../../mount/client/finding/careful-path.js';
import type { Loop, Mount } from '../../../../system/proc.js';
import { aVbd } from '../../../cli/fake-bus.js';

const FILE = '/run/fusetap/bus/0/xvda';
const PARTITION = `${FILE}1`;

const mount = (mountpoint: string, changes: Partial<Mount>): Mount => ({
  ...{ id: 1, dev: '0:77', root: '/', mountpoint, type: 'ext4', source: 'x', readOnly: false, owner: null },
  ...changes,
});
// numbers that no device of this machine has
const loop = (number: number, backingFile: string): Loop => ({
  ...{ path: `/dev/loop${number}`, devs: [`7:${number}`], backingFile, offsetBytes: 0, readOnly: false },
});

const TABLES: KernelTables = {
  loops: [loop(9000, FILE), loop(9001, PARTITION), loop(9002, '/srv/other.img')],
  mounts: [
    mount('/whole', { dev: '7:9000' }),
    mount('/bound', { dev: '7:9000', root: '/sub' }),
    mount('/btrfs', { source: '/dev/loop9000' }),
    mount('/second', { source: '/dev/loop9000p2' }),
    mount('/first', { dev: '7:9001' }),
    mount('/other', { dev: '7:9002' }),
    mount('/by-program', { type: 'fuse.fuse2fs', source: FILE, owner: { uid: process.geteuid?.() ?? 0, gid: 0 } }),
    mount('/lie', { type: 'fuse.fuse2fs', source: FILE, owner: { uid: 4_000_000, gid: 0 } }),
  ],
};

t.test('loop devices and mounts above a file', (t) => {
  t.same(aboveFile(FILE, TABLES), {
    loops: ['/dev/loop9000'],
    mounts: ['/whole', '/bound', '/btrfs', '/second', '/by-program'],
  });
  t.same(aboveFile('/srv/nothing', TABLES), { loops: [], mounts: [] });
  t.end();
});

t.test('a vbd has those of its partitions, too', (t) => {
  const partition = { vdev: 'xvda1', path: PARTITION, slot: 51713, offset: 0, size: 512, opens: 1 };
  const vbd = aVbd({ path: FILE, partitions: [{ ...partition, type: '83', typeName: null, name: null }] });
  t.match(withAbove(vbd, TABLES), {
    loops: ['/dev/loop9000', '/dev/loop9001'],
    mounts: ['/whole', '/bound', '/btrfs', '/second', '/by-program', '/first'],
    partitions: [{ vdev: 'xvda1', loops: ['/dev/loop9001'], mounts: ['/first'] }],
  });
  t.end();
});

t.test('the node of a partition belongs to its loop device', (t) => {
  t.equal(loopOfNode('/dev/loop9000', TABLES), '/dev/loop9000');
  t.equal(loopOfNode('/dev/loop9000p12', TABLES), '/dev/loop9000');
  t.equal(loopOfNode('/dev/loop900', TABLES), null);
  t.equal(loopOfNode('/dev/loop9000px', TABLES), null);
  t.end();
});
