import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { type Asked, aBus, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

/** a bus that detaches whatever it is asked to, but for what `refuse` gives an error for */
function obedient(bus: string, vbds: VbdInfo[], refuse: Record<string, object> = {}): (asked: Asked) => unknown {
  return ({ method, url }) => {
    if (method === 'GET') return aBus(bus, vbds);
    const vdev = /^\/vbds\/(\w+)/.exec(url)?.[1] ?? '';
    const error = refuse[vdev];
    if (error) return { status: 409, body: { error } };
    return { vbds: vbds.filter((vbd) => vbd.vdev === vdev), ended: false };
  };
}

const deleted = (asked: readonly Asked[]): string[] =>
  asked.filter(({ method }) => method === 'DELETE').map(({ url }) => url);

async function busWithImages(t: Test) {
  const directory = tempDir(t);
  const image = (name: string): string => join(directory, name);
  writeFileSync(image('a.img'), '');
  writeFileSync(image('b.img'), '');
  const vbds = [
    aVbd({ image: image('a.img'), path: join(directory, 'bus', 'xvda') }),
    aVbd({ vdev: 'xvdb', slot: 51728, image: image('b.img') }),
    aVbd({ vdev: 'xvdc', slot: 51744, image: image('b.img') }),
    aVbd({ vdev: 'xvdd', slot: 51760, image: null }),
  ];
  const runtime = join(directory, 'run');
  mkdirSync(runtime);
  const bus = await fakeBus(t, runtime, '0', obedient('0', vbds));
  return { directory, runtime, bus };
}

t.test('a vbd by its vdev, its slot, the path of its file, or of its image', async (t) => {
  const { directory, runtime, bus } = await busWithImages(t);
  symlinkSync(join(directory, 'a.img'), join(directory, 'link'));
  linkSync(join(directory, 'a.img'), join(directory, 'second-name'));
  const words = ['xvda', '51712', '0xca00', 'd0', 'bus/../bus/xvda', 'a.img', 'link', 'second-name'];
  for (const word of words) {
    const path = /^(xvda|51712|0xca00|d0)$/.test(word) ? word : join(directory, word);
    const { status, stdout, stderr } = await fusetap(runtime, ['detach', path]);
    t.same({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' }, word);
    t.same(deleted(bus.asked.splice(0)), ['/vbds/xvda'], word);
  }
});

t.test('an image that two vbds have names neither', async (t) => {
  const { directory, runtime, bus } = await busWithImages(t);
  const { status, stderr } = await fusetap(runtime, ['detach', join(directory, 'b.img')]);
  t.equal(status, 2);
  t.match(stderr, /several vbds have the image .*xvdb of bus 0, xvdc of bus 0: give the vdev/);
  t.same(deleted(bus.asked), []);
});

t.test('--wait and --force are passed on, --all is each', async (t) => {
  const { runtime, bus } = await busWithImages(t);
  t.equal((await fusetap(runtime, ['detach', '--force', '--wait', '0.5', 'xvdd'])).status, 0);
  t.same(deleted(bus.asked.splice(0)), ['/vbds/xvdd?force=1&wait=0.5']);
  t.equal((await fusetap(runtime, ['detach', '--all', '-v'])).stderr.split('\n').length, 5);
  t.same(
    deleted(bus.asked),
    ['xvda', 'xvdb', 'xvdc', 'xvdd'].map((vdev) => `/vbds/${vdev}`),
  );
});

t.test('a path is looked for on all buses, unless one was named', async (t) => {
  const { runtime, directory } = await busWithImages(t);
  const other = await fakeBus(t, runtime, '1', obedient('1', [aVbd({ bus: '1', image: join(directory, 'c.img') })]));
  t.equal((await fusetap(runtime, ['detach', join(directory, 'c.img')])).status, 0);
  t.same(deleted(other.asked.splice(0)), ['/vbds/xvda']);
  t.equal((await fusetap(runtime, ['detach', '--bus', '0', join(directory, 'c.img')])).status, 3);
  t.same(deleted(other.asked), []);
});

t.test('a path without a slash is a path, too', async (t) => {
  const { runtime, directory } = await busWithImages(t);
  const image = join(directory, 'c.img');
  const other = await fakeBus(t, runtime, '1', obedient('1', [aVbd({ bus: '1', image })]));
  t.equal((await fusetap(runtime, ['detach', 'c.img'], {}, directory)).status, 0);
  t.same(deleted(other.asked), ['/vbds/xvda']);
});

t.test('a vdev never means a vbd of another bus; the error names the only bus that has it', async (t) => {
  const { runtime } = await busWithImages(t);
  const other = await fakeBus(
    t,
    runtime,
    'two',
    obedient('two', [aVbd({ bus: 'two', vdev: 'xvdq', slot: 268439552 })]),
  );
  for (const word of ['xvdq', '268439552', '/dev/xvdq']) {
    const { status, stderr } = await fusetap(runtime, ['detach', word]);
    t.equal(status, 3, word);
    t.equal(stderr, `fusetap: no such vbd: '${word}' on bus 0: xvdq is on bus two: add --bus two\n`);
  }
  const { stderr } = await fusetap(runtime, ['detach', 'xvdq', '--bus', 'nowhere']);
  t.match(stderr, /^fusetap: no bus nowhere: .*: xvdq is on bus two: add --bus two\n$/);
  await fakeBus(t, runtime, 'three', obedient('three', [aVbd({ bus: 'three', vdev: 'xvdq', slot: 268439552 })]));
  t.match((await fusetap(runtime, ['detach', 'xvdq'])).stderr, /on bus 0: fusetap ls lists/, 'two other buses have it');
  t.same(deleted(other.asked), []);
});

t.test('a busy vbd does not stop the others, and decides the exit status', async (t) => {
  const runtime = tempDir(t);
  const holders = [
    { pid: 42, command: 'dd' },
    { loop: '/dev/loop0', mount: '/mnt' },
  ];
  const busy = { code: 'BUSY', message: 'xvda on bus 0 is held', hint: 'close it', holders };
  const vbds = [aVbd(), aVbd({ vdev: 'xvdb', slot: 51728 })];
  const bus = await fakeBus(t, runtime, '0', obedient('0', vbds, { xvda: busy }));
  const words = ['detach', 'xvda', 'nowhere', 'xvdb'];
  const plain = await fusetap(runtime, words);
  t.equal(plain.status, 4);
  t.equal(
    plain.stderr,
    'fusetap: xvda on bus 0 is held: close it\n' +
      "fusetap: no such vbd: 'nowhere' on any bus: fusetap ls lists what is attached\n",
  );
  t.same(deleted(bus.asked), ['/vbds/xvda', '/vbds/xvdb']);
  const json = await fusetap(runtime, ['--json', ...words]);
  t.equal(json.status, 4);
  t.same(JSON.parse(json.stdout), { error: busy, detached: [vbds[1]] });
});

t.test('a failed flush is reported, and is an error', async (t) => {
  const runtime = tempDir(t);
  const error = { code: 'FAILED', message: 'fsync /srv/disk.img: EIO' };
  await fakeBus(t, runtime, '0', ({ method }) =>
    method === 'GET' ? aBus('0', [aVbd()]) : { vbds: [{ ...aVbd(), error }], ended: false },
  );
  const { status, stdout, stderr } = await fusetap(runtime, ['detach', '--json', 'xvda']);
  t.equal(status, 1);
  t.match(stderr, /^fusetap: detached xvda of bus 0, but not all is durable: fsync \/srv\/disk.img: EIO: [^\n]+\n$/);
  t.same(JSON.parse(stdout), [{ ...aVbd(), error: { ...error, hint: null, holders: [] } }]);
});

t.test('with the last vbd, it returns when the keeper is gone', async (t) => {
  const runtime = tempDir(t);
  let goneAt = 0;
  const bus = await fakeBus(t, runtime, '0', ({ method }) => {
    if (method === 'GET') return aBus('0', [aVbd()]);
    void delay(400).then(() => {
      goneAt = Date.now();
      bus.leave();
    });
    return { vbds: [aVbd()], ended: true };
  });
  t.equal((await fusetap(runtime, ['detach', 'xvda'])).status, 0);
  t.ok(goneAt > 0 && Date.now() >= goneAt, 'the lock was free');
});

t.test('stop asks for all to go, and prints what went', async (t) => {
  const runtime = tempDir(t);
  const answers = (bus: string) => (asked: Asked) =>
    asked.method === 'GET' ? aBus(bus, []) : { vbds: [aVbd({ bus })], ended: false };
  const buses = [await fakeBus(t, runtime, '0', answers('0')), await fakeBus(t, runtime, '1', answers('1'))];
  const { status, stdout } = await fusetap(runtime, ['stop', '--json']);
  t.equal(status, 0);
  t.same(JSON.parse(stdout), [aVbd()]);
  t.match(buses[0]?.asked, [{ method: 'POST', url: '/stop', body: { force: false } }]);
  t.same(buses[1]?.asked, []);
  t.equal((await fusetap(runtime, ['stop', '--all', '--force'])).status, 0);
  for (const bus of buses) t.match(bus.asked.at(-1), { url: '/stop', body: { force: true } });
});
