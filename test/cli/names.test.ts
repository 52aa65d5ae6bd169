/** LABEL= and the like in commands, when not all buses and disks can be asked. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { aBus, aFile, aVbd, fakeBus, fusetap, tempDir } from './fake-bus.js';

const VBDS = [aVbd(), aVbd({ vdev: 'xvdb', slot: 51728 })];
const ROOT = aFile({ label: 'root', labelEncoded: 'root' });

t.test('a name is refused if a disk that may have it too could not be read', async (t) => {
  const runtime = tempDir(t);
  const other = aFile({ vdev: 'xvdb', slot: 51728, path: '/run/fusetap/bus/0/xvdb' });
  let files = [ROOT, other];
  const bus = await fakeBus(t, runtime, '0', ({ url }) => (url === '/names' ? files : aBus('0', VBDS)));
  t.match(await fusetap(runtime, ['show', 'LABEL=root']), { status: 0, stdout: /^vdev +xvda$/m });
  files = [ROOT, { ...other, known: false }];
  for (const verb of ['detach', 'pause', 'show']) {
    const refused = await fusetap(runtime, [verb, 'LABEL=root']);
    t.match(refused, { status: 4, stderr: /xvda has 'LABEL=root', .*: xvdb of bus 0 cannot be read now/ }, verb);
  }
  t.match(await fusetap(runtime, ['show', 'LABEL=no']), { status: 3, stderr: /xvdb of bus 0 cannot be read now/ });
  t.same(
    bus.asked.filter(({ method }) => method !== 'GET'),
    [],
    'nothing was changed',
  );
});

t.test('a name is refused if a bus could not be asked, unless the user names the bus', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, '0', ({ url }) => (url === '/names' ? [ROOT] : aBus('0', VBDS)));
  await fakeBus(t, runtime, 'old', ({ url }) => {
    const error = { code: 'UNSUPPORTED', message: 'the server of bus old is of an older version' };
    return url === '/names' ? { status: 501, body: { error } } : aBus('old', [aVbd({ bus: 'old' })]);
  });
  t.match(await fusetap(runtime, ['detach', 'LABEL=root']), {
    status: 4,
    stderr: /may have it too: the server of bus old/,
  });
  t.match(await fusetap(runtime, ['show', '--bus', '0', 'LABEL=root']), { status: 0, stdout: /^vdev +xvda$/m });
});

t.test('mount and umount: a file of such a name is not meant, and --bus narrows', async (t) => {
  const [runtime, directory] = [tempDir(t), tempDir(t)];
  writeFileSync(join(directory, 'LABEL=root'), 'no disk');
  await fakeBus(t, runtime, '0', ({ url }) => (url === '/names' ? [] : aBus('0', VBDS)));
  await fakeBus(t, runtime, 'two', ({ url }) => (url === '/names' ? [{ ...ROOT, bus: 'two' }] : aBus('two', VBDS)));
  const none = { status: 3, stderr: /nothing that is attached has 'LABEL=root' on bus 0/ };
  t.match(await fusetap(runtime, ['mount', '--bus', '0', 'LABEL=root', directory], {}, directory), none);
  t.match(await fusetap(runtime, ['umount', '--bus', '0', 'LABEL=root'], {}, directory), none);
});

t.test('ls --fs --json lists some of many duplicates', async (t) => {
  const runtime = tempDir(t);
  const many = Array.from({ length: 30 }, (_, i) => {
    return { vdev: `d${i}`, slot: 1000 + i, path: `/run/fusetap/bus/0/d${i}` };
  });
  const files = many.map((each) => aFile({ ...each, label: 'same' }));
  const bus = aBus('0', many.map(aVbd));
  await fakeBus(t, runtime, '0', ({ url }) => (url === '/names' ? files : bus));
  const rows = JSON.parse((await fusetap(runtime, ['ls', '--fs', '--json'])).stdout) as {
    path: string;
    duplicates: { name: string; paths: string[]; more: number }[];
  }[];
  t.equal(rows.length, 30);
  for (const { path, duplicates } of rows) {
    t.match(duplicates, [{ name: 'LABEL=same', more: 19 }]);
    t.equal(duplicates[0]?.paths.length, 10);
    t.notOk(duplicates[0]?.paths.includes(path));
  }
});
