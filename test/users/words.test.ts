/** What people typed, and what they expected of it: in public reports of other tools, and in a first hour with this one. */
import { readFile, utimes, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { collect, eventually } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';

t.setTimeout(400_000);

const MIB = 1 << 20;

type Wish = (t: Test, bench: Bench) => Promise<void>;

const WISHES: Record<string, Wish> = {
  'gives each of four jobs that run at once a copy of its own': async (t, bench) => {
    const image = await bench.image('golden.img', MIB, MIB);
    const before = await readFile(image);
    // each writes, waits until all have written, and reads
    const script = `
      printf "job$1" | dd of="$FUSETAP_DEVICE" conv=notrunc status=none
      : > "written.$1"
      until test "$(ls written.* | wc -l)" = 4; do sleep 0.05; done
      head -c 4 "$FUSETAP_DEVICE"
    `;
    const job = (number: number) => bench.fusetap(['run', `ram:${image}`, '--', 'sh', '-c', script, 'sh', `${number}`]);
    const jobs = await Promise.all([1, 2, 3, 4].map(job));
    t.same(
      jobs.map(({ stdout, stderr }) => stdout + stderr),
      ['job1', 'job2', 'job3', 'job4'],
    );
    t.ok(before.equals(await readFile(image)), 'the image is untouched');
  },

  'runs a job on the image as it is now, and shares memory only if asked': async (t, bench) => {
    const image = await bench.image('golden.img', MIB, MIB);
    const vbd = await bench.attach('--share', 'team', `ram:${image}`);
    await bench.sh('printf NEW | dd of="$1" conv=notrunc status=none', image);
    const read = ['--', 'head', '-c', '3', '{}'];
    t.match(await bench.fusetap(['run', `ram:${image}`, ...read]), { status: 0, stdout: 'NEW', stderr: '' });
    await bench.sh('printf OWN | dd of="$1" conv=notrunc status=none', vbd);
    const shared = await bench.fusetap(['run', '--share', 'team', `ram:${image}`, ...read]);
    t.match(shared, {
      status: 0,
      stdout: 'OWN',
      stderr: /^fusetap: the copy in memory is older than .*golden\.img[^\n]*\n$/,
    });
    await bench.detach('--all');
  },

  'says who shares the memory, and since when': async (t, bench) => {
    const image = await bench.image('golden.img', MIB, MIB);
    t.equal((await bench.fusetap(['attach', '--bus', 'a', `ram:${image}`])).stderr, '', 'the first copies it');
    const joined = await bench.fusetap(['attach', '--bus', 'b', `ram:${image}`]);
    t.match(
      joined.stderr,
      /^fusetap: shares the memory of xvda of bus a, in use since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\n$/,
    );
    t.equal((await bench.fusetap(['attach', '--quiet', '--bus', 'b', `ram:${image}`])).stderr, '');
    t.equal((await bench.fusetap(['attach', '--private', '--bus', 'b', `ram:${image}`])).stderr, '');
    // a save over the image makes both the same again
    await bench.succeed(['save', '--bus', 'a', '--force', 'xvda', image]);
    t.notMatch((await bench.fusetap(['attach', '--bus', 'a', `ram:${image}`])).stderr, /older/);
    // later than the save, also on a file system with a coarse clock
    const later = new Date(Date.now() + 2_000);
    await utimes(image, later, later);
    const older = await bench.fusetap(['attach', '--bus', 'a', `ram:${image}`]);
    t.match(older.stderr, /shares the memory of .*\nfusetap: the copy in memory is older than [^\n]*--private\n$/);
    await bench.succeed(['stop', '--all']);
  },

  'attaches all images of a directory, or none': async (t, bench) => {
    for (const name of ['a.img', 'b.img', 'c.img']) await bench.image(name, MIB);
    const bus = `${bench.runtimeDir}/bus/0`;
    const all = await bench.sh('"$1" "$2" attach *.img', process.execPath, bench.program);
    t.equal(all, `${bus}/xvda\n${bus}/xvdb\n${bus}/xvdc`);
    await bench.detach('--all');
    const attached = await bench.succeed(['attach', 'a.img', 'b.img', 'xvdf', 'r', 'ram:c.img']);
    t.equal(attached, `${bus}/xvda\n${bus}/xvdf\n${bus}/xvdb`);
    t.match(await bench.list(), [{ mode: 'w' }, { vdev: 'xvdb', driver: 'ram' }, { vdev: 'xvdf', mode: 'r' }]);
    await bench.detach('--all');
    const refused = await bench.fusetap(['attach', 'a.img', 'b.img', 'ram:nowhere.img']);
    t.match(refused, { status: 3, stdout: '', stderr: /^fusetap: ram:nowhere\.img: .*no such image[^\n]*\n$/ });
    t.same(await bench.list(), []);
  },

  'leaves nothing of several images if Ctrl-C comes in between': async (t, bench) => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => `./${name}.img`);
    for (const name of names) await bench.image(name, MIB);
    const attach = bench.startFusetap(['attach', ...names]);
    const ended = collect(attach);
    await eventually('the first vbd', 60_000, async () => (await bench.list()).length > 0);
    attach.kill('SIGINT');
    const { status } = await ended;
    t.ok(status === 130 || status === 0, `status ${status}`);
    // it may have come too late
    if (status === 0) await bench.detach('--all');
    t.same(await bench.list(), []);
  },

  // mhx/dwarfs #323
  'takes a path with a comma, or with a blank before it': async (t, bench) => {
    await bench.image('x,y.img', MIB);
    await bench.image(' lead.img', 2 * MIB);
    const attached = JSON.parse(await bench.succeed(['attach', '--json', './x,y.img', ' lead.img'])) as VbdInfo[];
    t.match(attached, [{ image: bench.path('x,y.img') }, { image: bench.path(' lead.img') }]);
    await bench.detach('--all');
    t.equal((await bench.fusetap(['run', 'ram:x,y.img', '--', 'test', '-f', '{}'])).status, 0);
    t.match((await bench.fusetap(['attach', ' nowhere.img'])).stderr, /\/ nowhere\.img'?: no such image/);
    t.match((await bench.fusetap(['attach', './x,z.img'])).stderr, /'z\.img' is neither .*target=PATH/);
  },

  // QubesOS/qubes-issues #3084
  "finds the devices of Xen's tools without /dev/": async (t, bench) => {
    // any device shows where it was looked for
    for (const spec of ['phy:null,xvda,w', 'null,,xvda', 'format=raw,vdev=xvda,target=null']) {
      t.match((await bench.fusetap(['attach', spec])).stderr, /\/dev\/null is a character device/, spec);
    }
    await bench.image('null', MIB);
    await bench.succeed(['attach', 'null,,xvda']);
    t.match(await bench.list(), [{ image: bench.path('null') }], 'a file of that name, as before');
    await bench.detach('xvda');
  },

  'says in one line that a pipe cannot be an image': async (t, bench) => {
    const line = /^fusetap: \/dev\/(stdin|fd\/\d+) is a pipe: an image is a regular file or a block device: [^\n]*\n$/;
    const script = 'cat /dev/zero | "$1" "$2" attach /dev/stdin';
    t.match(await bench.try(script, process.execPath, bench.program), { status: 2, stderr: line });
  },

  'makes a file system on the file that {} stands for': async (t, bench) => {
    await bench.image('disk.img', 4 * MIB);
    t.match(await bench.fusetap(['run', 'disk.img', '--', 'mkfs.ext4', '-q', '{}']), { status: 0, stderr: '' });
    const two = await bench.image('two.img', 4 * MIB);
    await bench.sh('echo "start=2048,type=83" | sfdisk -q "$1"', two);
    const words = ['run', '-r', '--partitions', 'disk.img', 'two.img', '--'];
    const echo = await bench.succeed([...words, 'echo', '{}', 'if={2}1', '{3}', '{{}}', '{}{1}']);
    const bus = /^(\S+)\/xvda /.exec(echo)?.[1];
    t.equal(echo, `${bus}/xvda if=${bus}/xvdb1 {3} {} ${bus}/xvda${bus}/xvda`);
    t.equal(await bench.succeed([...words, 'stat', '-c', '%s', '{2}1']), String(3 * MIB));
    t.match(await bench.fusetap([...words, 'dd', 'if=/dev/zero', 'of={}', 'count=1']), { stderr: /Read-only/ });
  },

  'saves what is attached, and attaches it again': async (t, bench) => {
    const [first, second] = [await bench.image('a.img', 4 * MIB), await bench.image('b.img', 4 * MIB)];
    await bench.succeed(['attach', first, 'hda', 'w!']);
    t.match(await bench.fusetap(['config']), { status: 0, stderr: '' });
    await bench.sh('"$1" "$2" config > lines; "$1" "$2" config --json > lines.json', process.execPath, bench.program);
    await bench.detach('--all');
    for (const file of ['lines', 'lines.json']) {
      await bench.succeed(['attach', '--config', file]);
      t.match(await bench.list(), [{ image: first, vdev: 'hda', mode: 'w!' }], file);
      await bench.detach('--all');
    }

    await bench.succeed(['attach', '--offset', '1MiB', '--filter', 'delay=1', '--share', 'us', `ram:${second}`]);
    await bench.succeed(['attach', first]);
    const config = await bench.fusetap(['config']);
    t.match(config, { status: 2, stdout: /^format=raw.*\nformat=raw.*\n$/ });
    t.match(
      config.stderr,
      /^fusetap: xvda of bus 0: a line of xl cannot carry offset=\d+ delay=1 --share us: [^\n]*\n$/,
    );
    const before = await bench.list();
    const saved = await bench.succeed(['ls', '--json']);
    await bench.detach('--all');
    await bench.succeed(['attach', '--config', '-'], { input: saved });
    const kept = ({ vdev, image, driver, mode, size, filters, share, options }: VbdInfo) => ({
      vdev,
      image,
      driver,
      mode,
      size,
      filters,
      share,
      options,
    });
    t.same((await bench.list()).map(kept), before.map(kept));
    await bench.detach('--all');
    await writeFile(bench.path('lines'), `format=raw, vdev=xvda, target=${first}\nnonsense,,\n`);
    t.match(await bench.fusetap(['attach', '--config', 'lines']), {
      status: 2,
      stderr: /^fusetap: lines:2: /,
      stdout: '',
    });
  },

  'is told only of options that the command has': async (t, bench) => {
    const image = await bench.image('disk.img', MIB);
    const vbd = await bench.attach(`ram:${image}`);
    const client = bench.startProgram('sh', ['-c', 'exec 7<"$1"; echo open; read line', 'sh', vbd]);
    const ended = collect(client);
    await new Promise((resolve) => client.stdout?.once('data', resolve));
    t.match(await bench.fusetap(['reset', 'xvda']), { status: 4, stderr: /in use by [^\n]*: close it there\n$/ });
    const busy = await bench.fusetap(['block-detach', '0', 'xvda']);
    t.match(busy, { status: 4, stderr: /close it there, or wait with --wait SECONDS, or cut it off with --force\n$/ });
    const detach = bench.fusetap(['block-detach', '0', 'xvda', '--wait', '60']);
    client.stdin?.end();
    await ended;
    t.match(await detach, { status: 0, stderr: '' });
  },
};

onDefaultTransport(t, ['mkfs.ext4', 'sfdisk'], async (t, transport) => {
  for (const [name, wish] of Object.entries(WISHES)) {
    await t.test(name, async (t) => {
      const bench = await openBench(t, transport);
      await wish(t, bench);
      t.same(await bench.traces(), [], 'nothing is left');
    });
  }
});
