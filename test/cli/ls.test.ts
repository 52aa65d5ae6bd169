import { spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { aBus, aFile, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

/** A vbd as `ls` prints it if nothing is above it. */
const unmounted = (vbd: VbdInfo): object => ({ ...vbd, loops: [], mounts: [] });

t.test('a table of all buses, by bus and slot', async (t) => {
  const runtime = tempDir(t);
  const second = aVbd({ vdev: 'xvdb', slot: 51728, driver: 'ram', mode: 'r', image: null, size: 1024 ** 3, opens: 12 });
  await fakeBus(t, runtime, '0', () => aBus('0', [second, aVbd()]));
  await fakeBus(t, runtime, 'build-7', () => aBus('build-7', [aVbd({ bus: 'build-7', mode: 'w!', state: 'paused' })]));
  await fakeBus(t, runtime, 'empty', () => aBus('empty', []));
  const { status, stdout, stderr } = await fusetap(runtime, ['ls']);
  t.equal(stderr, '');
  t.equal(status, 0);
  t.equal(
    stdout,
    [
      'BUS      VDEV   SLOT  DRIVER  MODE  SIZE  OPENS  STATE    IMAGE          MOUNTED',
      '0        xvda  51712  aio     w     1.5M      0  running  /srv/disk.img',
      '0        xvdb  51728  ram     r       1G     12  running  -',
      'build-7  xvda  51712  aio     w!    1.5M      0  paused   /srv/disk.img',
      'empty    -         -  -       -        -      -  no vbds  -',
      '',
    ].join('\n'),
  );
});

t.test('--fs: what the vbds hold, and names that several have', async (t) => {
  const runtime = tempDir(t);
  const vbds = [aVbd(), aVbd({ vdev: 'xvdb', slot: 51728, path: '/run/fusetap/bus/0/xvdb' })];
  const ext4 = { type: 'ext4', usage: 'filesystem', label: 'a\nb', labelEncoded: 'a\\x0ab' } as const;
  const path = vbds[0]?.path ?? '';
  const files = [aFile({ ...ext4, path, uuid: 'u-1' }), aFile({ ...ext4, vdev: 'xvdb', slot: 51728 })];
  await fakeBus(t, runtime, '0', ({ url }) => (url === '/names' ? files : aBus('0', vbds)));
  // of an older version
  await fakeBus(t, runtime, 'old', ({ url }) => {
    const error = { code: 'NOT_FOUND', message: 'no such request: GET /names' };
    return url === '/names' ? { status: 404, body: { error } } : aBus('old', [aVbd({ bus: 'old', path: '/old/xvda' })]);
  });
  const { status, stdout, stderr } = await fusetap(runtime, ['ls', '--fs']);
  t.equal(
    stdout,
    [
      'BUS  VDEV  FSTYPE  LABEL  UUID  PARTLABEL  LOOP  MOUNTED',
      '0    xvda  ext4    a\\nb   u-1   -          -',
      '0    xvdb  ext4    a\\nb   -     -          -',
      'old  xvda  -       -      -     -          -',
      '',
    ].join('\n'),
  );
  t.match(stderr, /LABEL='a\\nb' is on xvda and xvdb; by-label leads to xvda/);
  t.match(stderr, /no such request: GET \/names/);
  t.equal(status, 1, 'the list is incomplete');
  t.match(await fusetap(runtime, ['ls', '--fs', '--buses']), { status: 2, stderr: /contradict each other/ });
  const json = JSON.parse((await fusetap(runtime, ['ls', '--fs', '--json', '--bus', '0'])).stdout);
  t.match(json, [{ vdev: 'xvda', label: 'a\nb', duplicates: [{ paths: [files[1]?.path] }] }, { vdev: 'xvdb' }]);
});

t.test('no bus: the head, and status 0', async (t) => {
  const { status, stdout, stderr } = await fusetap(tempDir(t), ['ls']);
  t.match({ status, stderr }, { status: 0, stderr: '' });
  t.match(stdout, /^BUS +VDEV +SLOT +DRIVER +MODE +SIZE +OPENS +STATE +IMAGE +MOUNTED\n$/);
  t.same(JSON.parse((await fusetap(tempDir(t), ['ls', '--json'])).stdout), []);
});

t.test('--json gives the vbds as they are; --bus narrows, on either side of the word', async (t) => {
  const runtime = tempDir(t);
  const vbds = [aVbd({ bus: '1', image: '/srv/a\nb\x1b[31m.img' })];
  const other = await fakeBus(t, runtime, '0', () => aBus('0', [aVbd()]));
  await fakeBus(t, runtime, '1', () => aBus('1', vbds));
  for (const args of ['ls --json --bus 1', '--bus 1 ls --json', '--json --bus=1 ls']) {
    t.same(JSON.parse((await fusetap(runtime, args.split(' '))).stdout), vbds.map(unmounted), args);
  }
  t.same(other.asked, [], 'the other bus was not asked');
  t.same(
    JSON.parse((await fusetap(runtime, ['ls', '--json'], { FUSETAP_BUS: '1' })).stdout),
    [aVbd(), ...vbds].map(unmounted),
  );
  const table = (await fusetap(runtime, ['ls'])).stdout;
  t.match(table, /\/srv\/a\\nb\\x1b\[31m\.img\n$/, 'what could end a line is escaped');
  t.equal(table.trimEnd().split('\n').length, 3);
});

t.test('a bus that cannot be shown does not hide the others', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, '0', () => aBus('0', [aVbd()]));
  await fakeBus(t, runtime, '1', (_, response) => void response.destroy());
  const { status, stdout, stderr } = await fusetap(runtime, ['ls']);
  t.equal(status, 1, 'the list is incomplete');
  t.match(stdout, /\n0 +xvda[^\n]*\n1 [^\n]* not answering /);
  t.match(stderr, /^fusetap: bus 1 did not answer: [^\n]+\n$/);
  t.match(await fusetap(runtime, ['ls', '-q', '--json']), { status: 1, stderr: '' });
  const { stdout: buses } = await fusetap(runtime, ['ls', '--buses', '--json']);
  t.match(JSON.parse(buses), [
    { bus: '0', state: 'running', vbds: [{ vdev: 'xvda' }], error: null },
    { bus: '1', state: 'not-answering', vbds: [], keeperPid: null, error: { code: 'FAILED' } },
  ]);
});

t.test('what a dead bus left behind is no bus', async (t) => {
  const runtime = tempDir(t);
  (await fakeBus(t, runtime, '0', () => aBus('0', []))).leave();
  const { mkdirSync } = await import('node:fs');
  mkdirSync(`${runtime}/state/0`, { recursive: true });
  t.match(await fusetap(runtime, ['ls', '--json']), { status: 0, stdout: '[]\n', stderr: '' });
});

t.test('a reader that goes away is no error, a full disk is', async (t) => {
  const runtime = tempDir(t);
  const vbds = Array.from({ length: 2000 }, (_, slot) => aVbd({ slot }));
  await fakeBus(t, runtime, '0', () => aBus('0', vbds));
  const program = new URL('../../cli/main.cjs', import.meta.url).pathname;
  const shell = async (script: string): Promise<string> => {
    const env = { ...process.env, FUSETAP_RUNTIME_DIR: runtime };
    const child = spawn('bash', ['-c', script, process.execPath, program], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    await once(child, 'close');
    return out;
  };
  t.match(await shell('{ "$0" "$1" ls 2>&1 >&3 | cat; } 3>&1 | head -1'), /^BUS[^\n]*\n$/, 'nothing on stderr');
  t.equal(await shell('set -o pipefail; "$0" "$1" ls | true; echo $?'), '0\n');
  t.match(await shell('"$0" "$1" ls 2>&1 >/dev/full; echo $?'), /^fusetap: cannot write to stdout: ENOSPC[^\n]*\n1\n$/);
});
