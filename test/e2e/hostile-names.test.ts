/**
 * Images that name files which their user did not mean: every such image is refused with one line, and nothing outside
 * the policy is opened. strace records each file that keeper and server open meanwhile.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { KERNEL, startBus } from '../survival/bus.js';
import { eventually } from './command.js';
import { type Bench, whyNot } from './fixtures.js';

t.setTimeout(240_000);

const SECTORS = 2048;
const BYTES = SECTORS * 512;

/** A text descriptor of VMware with flat extents. */
function descriptor(...extents: readonly (readonly [name: string, sectors?: number])[]): string {
  return [
    '# Disk DescriptorFile',
    'version=1',
    'CID=fffffffe',
    'parentCID=ffffffff',
    'createType="twoGbMaxExtentFlat"',
    ...extents.map(([name, sectors = SECTORS]) => `RW ${sectors} FLAT "${name}" 0`),
    '',
  ].join('\n');
}

/** An image in a folder of its own, with a good extent beside it; a secret lies outside. */
async function stage(bench: Bench) {
  const folder = await bench.makeDirectory('images');
  mkdirSync(`${folder}/sub`);
  writeFileSync(`${folder}/good.img`, Buffer.alloc(BYTES, 1));
  writeFileSync(`${folder}/sub/good.img`, Buffer.alloc(BYTES, 2));
  writeFileSync(bench.path('secret'), Buffer.alloc(BYTES, 3), { mode: 0o600 });
  symlinkSync(bench.path('secret'), `${folder}/link`);
  symlinkSync('..', `${folder}/up`);
  execFileSync('mkfifo', [`${folder}/fifo`]);
  symlinkSync('/dev/zero', `${folder}/zero`);
  const write = (name: string, text: string): string => {
    writeFileSync(`${folder}/${name}`, text);
    return `${folder}/${name}`;
  };
  return { folder, secret: bench.path('secret'), write };
}

/** Records what both processes of the bus open, until the result is called; it returns the record. */
async function traced(t: Test, bench: Bench, pids: readonly number[]): Promise<() => Promise<string>> {
  const file = bench.path('trace');
  const which = pids.flatMap((pid) => ['-p', String(pid)]);
  const strace = bench.startProgram('strace', ['-f', '-e', 'trace=open,openat,openat2', '-o', file, ...which]);
  t.teardown(() => strace.kill('SIGKILL'));
  const isTraced = (pid: number): boolean => !/^TracerPid:\t0$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  await eventually('strace follows them', 20_000, async () => pids.every(isTraced));
  return async () => {
    strace.kill('SIGTERM');
    await eventually('strace has left', 20_000, async () => !pids.some(isTraced));
    return readFileSync(file, 'utf8');
  };
}

t.test('hostile names', { skip: whyNot('strace') }, async (t) => {
  const bus = await startBus(t, {}, '0', KERNEL);
  const { bench } = bus;
  const { folder, secret, write } = await stage(bench);
  const { keeperPid, serverPid } = await bus.info();
  const stop = await traced(t, bench, [keeperPid as number, serverPid as number]);

  const hostile: [name: string, status: number, said: RegExp][] = [
    ['/etc/shadow', 5, /not below/],
    [secret, 5, /not below/],
    ['../secret', 5, /not below/],
    ['sub/../../secret', 5, /not below/],
    ['link', 5, /not below/],
    ['up/secret', 5, /not below/],
    ['fifo', 2, /a FIFO/],
    ['zero', 5, /not below/],
    ['/dev/vda', 6, /on a device/],
    ['nbd://host/x', 5, /protocol/],
    ['none.img', 3, /no such image/],
    ['self.vmdk', 2, /below itself|another format|names itself/],
    ['', 1, /the VMDK descriptor is damaged/],
  ];
  const spec = (path: string): string => `vmdk:${path}`;
  write('self.vmdk', descriptor(['self.vmdk', 1]));
  for (const [name, status, said] of hostile) {
    const image = name === 'self.vmdk' ? `${folder}/self.vmdk` : write('hostile.vmdk', descriptor([name]));
    const outcome = await bench.fusetap(['attach', spec(image)]);
    t.match(outcome, { status, stdout: '', stderr: said }, name);
    t.equal(outcome.stderr.trimEnd().split('\n').length, 1, `one line for ${name}: ${outcome.stderr}`);
  }
  t.match(await bench.fusetap(['attach', '--backing', 'none', spec(write('a.vmdk', descriptor(['good.img'])))]), {
    status: 5,
    stderr: /--backing none/,
  });
  t.same(await bench.list(), [], 'nothing is attached');
  const record = await stop();
  t.match(record, /hostile\.vmdk/, 'the record has the images');
  for (const path of ['shadow', secret, '/dev/zero', '/dev/vda', 'fifo']) {
    t.notOk(
      record.split('\n').some((line) => line.includes(`"${path}"`) || line.includes(`/${path}"`)),
      path,
    );
  }

  t.test('good names work, and any file with --backing any', async (t) => {
    const both = write('both.vmdk', descriptor(['good.img'], ['sub/good.img']));
    const path = await bench.attach(spec(both));
    t.equal(await bench.sh('od -An -tx1 -j $(($2 - 1)) -N 2 "$1"', path, String(BYTES)), ' 01 02');
    await bench.detach('xvda');
    const outside = write('outside.vmdk', descriptor(['../secret']));
    const other = await bench.attach('--backing', 'any', spec(outside));
    t.equal(await bench.sh('od -An -tx1 -N 2 "$1"', other), ' 03 03');
    await bench.detach('xvda');
  });
});

t.test('a broken file of a disk breaks only its vbd', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t, {}, '0', KERNEL);
  const { bench } = bus;
  const { folder, write } = await stage(bench);
  const text = descriptor(['good.img'], ['sub/good.img']);
  const both = await bench.attach(`vmdk:${write('both.vmdk', text)}`);
  const plain = await bench.attach(await bench.image('plain.img', BYTES));
  const read = (path: string, from: number) =>
    bench.execute('dd', [`if=${path}`, 'bs=4096', `skip=${from / 4096}`, 'count=1', 'of=/dev/null']);
  t.equal((await read(both, BYTES)).status, 0);
  execFileSync('truncate', ['-s', '0', `${folder}/sub/good.img`]);
  t.match(await read(both, BYTES), { status: 1, stderr: /Input\/output error/ }, 'bytes that are gone');
  t.equal((await read(both, 0)).status, 0, 'the other file of the disk is there');
  t.equal((await read(plain, 0)).status, 0);
  write('both.vmdk', '');
  await bus.killServer();
  t.equal((await read(plain, 0)).status, 0, 'the other vbd is served by the new server');
  const [first, second] = await bench.list();
  t.match(first, { vdev: 'xvda', broken: /./ }, 'the new server cannot open the disk');
  t.match(second, { vdev: 'xvdb', broken: null });
  t.match(await read(both, 0), { status: 1, stderr: /Input\/output error/ });
  execFileSync('truncate', ['-s', String(BYTES), `${folder}/sub/good.img`]);
  write('both.vmdk', text);
  await bus.killServer();
  t.equal((await read(both, BYTES)).status, 0, 'and when the files are whole again, so is the disk');
  t.match(await bench.list(), [{ broken: null }, { broken: null }]);
});
