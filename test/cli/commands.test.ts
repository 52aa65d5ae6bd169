/** Commands that show something, with a fake bus; and commands that need no bus. */
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseSpec } from '../../cli/disk-spec/index.js';
import { parseSize } from '../../cli/size.js';
import { aBus, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

t.test('sizes', async (t) => {
  const sizes: Record<string, number> = {
    ...{ '0': 0, '1': 1, '512': 512, '1K': 1024, '64M': 64 << 20, '10G': 10 * 2 ** 30, '2T': 2 ** 41 },
    ...{
      '1KB': 1000,
      '20MB': 20e6,
      '3GB': 3e9,
      '1TB': 1e12,
      '10MiB': 10 << 20,
      '10m': 10 << 20,
      '1.5G': 1.5 * 2 ** 30,
    },
  };
  for (const [word, bytes] of Object.entries(sizes)) t.equal(parseSize(word, 'SIZE'), bytes, word);
  for (const word of ['', ' ', '-1', '1e3', '0x', '1X', 'M', '1 M', '1,5G', '9999999T', 'NaN', '1\n']) {
    t.throws(() => parseSize(word, '--offset'), { code: 'USAGE', message: /--offset/ }, JSON.stringify(word));
  }
  t.throws(() => parseSize('0', 'SIZE', 1), { code: 'USAGE' });
});

t.test('create makes a sparse image, and never overwrites', async (t) => {
  const directory = tempDir(t);
  const image = join(directory, 'a b.img');
  t.same(await fusetap(directory, ['create', image, '3G']), { status: 0, stdout: '', stderr: '' });
  t.match(statSync(image), { size: 3 * 2 ** 30, blocks: 0 });
  symlinkSync(join(directory, 'elsewhere'), join(directory, 'link'));
  writeFileSync(join(directory, 'file'), 'precious');
  for (const name of ['file', 'link', '.']) {
    const { status, stderr } = await fusetap(directory, ['create', join(directory, name), '1M']);
    t.equal(status, 4, name);
    t.match(stderr, /is there already/);
  }
  t.equal(readFileSync(join(directory, 'file'), 'utf8'), 'precious');
  t.throws(() => statSync(join(directory, 'elsewhere')), { code: 'ENOENT' });
  const json = await fusetap(directory, ['create', '--json', join(directory, 'c.img'), '20MB']);
  t.same(JSON.parse(json.stdout), { image: join(directory, 'c.img'), format: 'raw', size: 20e6 });
});

t.test('an image that is too large for its file system leaves nothing behind', async (t) => {
  const directory = tempDir(t);
  const { status } = await fusetap(directory, ['create', join(directory, 'a.img'), '8191T']);
  // some file systems do take it
  if (status === 0) return;
  t.equal(status, 1);
  t.throws(() => statSync(join(directory, 'a.img')), { code: 'ENOENT' });
});

t.test('slot, there and back', async (t) => {
  const directory = tempDir(t);
  const pairs = { xvda: '51712', '51728': 'xvdb', hda: '768', '0xca00': 'xvda', '/dev/sdb1': '2065', '7': '7' };
  for (const [word, answer] of Object.entries(pairs)) {
    t.same(await fusetap(directory, ['slot', word]), { status: 0, stdout: `${answer}\n`, stderr: '' }, word);
  }
  const { stdout } = await fusetap(directory, ['slot', '--json', 'd1']);
  t.same(JSON.parse(stdout), { slot: 51728, vdev: 'xvdb' });
});

const VBDS = [
  aVbd({ vdev: 'xvdb', slot: 51728, driver: 'ram', image: '/img/b,c.img', mode: 'r', passthrough: true, share: 'b' }),
  aVbd({ opens: 3 }),
];

t.test('show, the bus and a vbd', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, '0', () => aBus('0', VBDS));
  const bus = await fusetap(runtime, ['show']);
  t.equal(bus.status, 0);
  t.match(
    bus.stdout,
    /^bus {8}0\n(.*\n)*state {6}running\n(.*\n)*keeper {5}1\nserver {5}2\n(.*\n)*vbds {7}xvdb xvda\n$/,
  );
  const unmounted = VBDS.map((vbd) => ({ ...vbd, loops: [], mounts: [] }));
  t.same(JSON.parse((await fusetap(runtime, ['show', '--json'])).stdout), { ...aBus('0', VBDS), vbds: unmounted });
  const vbd = await fusetap(runtime, ['show', '51728']);
  t.match(vbd.stdout, /^vdev {7}xvdb$/m);
  t.match(vbd.stdout, /^size {7}1572864 \(1.5M\)$/m);
  t.match(vbd.stdout, /^transport {2}kernel, passthrough$/m);
  t.same(JSON.parse((await fusetap(runtime, ['show', '--json', '/srv/disk.img'])).stdout), {
    ...unmounted[1],
    holders: null,
  });
  t.equal((await fusetap(runtime, ['show', 'xvdq'])).status, 3);
});

t.test('config prints lines that parse to the same disks', async (t) => {
  const runtime = tempDir(t);
  // a line cannot carry the name of a share
  const vbds = VBDS.map((vbd) => ({ ...vbd, share: null }));
  await fakeBus(t, runtime, 'dom-7', () => aBus('dom-7', vbds));
  const { status, stdout } = await fusetap(runtime, ['config', 'dom-7']);
  t.equal(status, 0);
  const lines = stdout.trimEnd().split('\n');
  t.equal(lines[0], 'format=raw, vdev=xvda, access=rw, target=/srv/disk.img');
  t.match(
    lines.map((line) => parseSpec(line)),
    [
      { driver: 'aio', image: '/srv/disk.img', vdev: 'xvda', mode: 'w' },
      { driver: 'ram', image: '/img/b,c.img', vdev: 'xvdb', mode: 'r' },
    ],
  );
  t.same(JSON.parse((await fusetap(runtime, ['config', '--bus', 'dom-7', '--json'])).stdout), lines);
  t.equal((await fusetap(runtime, ['config', '--bus', '1', 'dom-7'])).status, 2);
});

t.test('config reports vbds that no line can describe, and prints the others', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, '0', () => aBus('0', [aVbd({ image: '/img/a\nb' }), aVbd({ vdev: 'xvdb', slot: 51728 })]));
  const { status, stdout, stderr } = await fusetap(runtime, ['config']);
  t.equal(status, 2);
  t.match(stdout, /^format=raw, vdev=xvdb[^\n]*\n$/);
  t.match(stderr, /^fusetap: [^\n]+\n$/);
});

t.test('stats', async (t) => {
  const runtime = tempDir(t);
  const none = { requests: 0, bytes: 0, errors: 0, latencyUs: { p50: null, p99: null, max: null } };
  const read = { requests: 12, bytes: 49152, errors: 1, latencyUs: { p50: 8.1, p99: 20, max: 90.25 } };
  const stats = VBDS.map(({ bus, vdev, passthrough }) => {
    return { bus, vdev, passthrough, read, write: none, flush: none, discard: none };
  });
  await fakeBus(t, runtime, '0', ({ url }) => (url === '/stats' ? stats : aBus('0', VBDS)));
  const { stdout, stderr } = await fusetap(runtime, ['stats']);
  t.match(
    stdout,
    /^BUS +VDEV +KIND +REQUESTS +BYTES +ERRORS +P50-US +P99-US +MAX-US\n0 +xvdb +read +12 +48K +1 +8\.1 /,
  );
  t.match(stdout, /\n0 +xvda +discard +0 +0 +0 +- +- +-\n$/);
  t.equal(stderr, 'fusetap: passed through by the kernel, so not counted: xvdb\n');
  t.same(JSON.parse((await fusetap(runtime, ['stats', '--json'])).stdout), stats);
  t.same(JSON.parse((await fusetap(runtime, ['stats', '--json', 'xvda'])).stdout), [stats[1]]);
  t.equal((await fusetap(runtime, ['stats', '-q'])).stderr, '');
});

t.test('upgrade prints how long requests waited', async (t) => {
  const runtime = tempDir(t);
  const answer = { bus: aBus('0', []), pauseMs: 12.34 };
  const bus = await fakeBus(t, runtime, '0', () => answer);
  const old = await fusetap(runtime, ['upgrade']);
  t.match(old, { status: 0, stdout: '12.3 ms pause\n' });
  t.match(
    old.stderr,
    /^fusetap: the keeper of bus 0 is of an older fusetap: its server runs the code of the keeper's own /,
  );
  t.match(bus.asked[0], { method: 'POST', url: '/upgrade', body: { program: /^\/.*\/mount\/server\/main\.cjs$/ } });

  const version = { keeper: '1.0.0', server: '1.1.0' };
  const program = '/opt/fusetap/server.js';
  await fakeBus(t, runtime, 'new', () => ({ bus: { ...aBus('new', []), version }, pauseMs: 12.34, program }));
  const stdout = '12.3 ms pause; server 1.1.0, keeper 1.0.0\n';
  t.same(await fusetap(runtime, ['upgrade', '--bus', 'new']), { status: 0, stdout, stderr: '' });
  const json = JSON.parse((await fusetap(runtime, ['upgrade', '--bus', 'new', '--json'])).stdout);
  t.match(json, { bus: { bus: 'new' }, name: 'new', version, program, pauseMs: 12.34 });
});

t.test('log, of a bus that nobody runs', async (t) => {
  const runtime = tempDir(t);
  const bus = await fakeBus(t, runtime, '0', () => ({}));
  const line = '2026-01-31T12:00:00.000Z failed reason="the server died"';
  const record = '{"time":"2026-01-31T12:00:00.000Z","event":"failed","reason":"the server died"}';
  writeFileSync(join(bus.stateDir, 'log'), `${record}\nError: x\x1b[2J\n`);
  t.same(await fusetap(runtime, ['log']), { status: 0, stdout: `${line}\nError: x\\x1b[2J\n`, stderr: '' });
  const { stdout } = await fusetap(runtime, ['log', '--json']);
  const records = stdout.trimEnd().split('\n');
  t.same(
    records.map((record) => JSON.parse(record)),
    [
      { time: '2026-01-31T12:00:00.000Z', event: 'failed', reason: 'the server died' },
      { time: null, event: 'output', text: 'Error: x\x1b[2J' },
    ],
  );
  t.equal(bus.asked.length, 0, 'nobody is asked');
  t.equal((await fusetap(runtime, ['log', '--bus', 'nowhere'])).status, 3);
});
