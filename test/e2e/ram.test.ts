/**
 * Ram images: one memory for all vbds of an image on any bus, that takes what the image uses and no more than it may,
 * and that is gone with its last user, whatever happened to the others.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { MemoryInfo } from '../../mount/bus/interface.js';
import { collect, eventually, start } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(300_000);

const MIB = 1 << 20;

/** A story that ends with nothing left, and no memory in use. */
function tell(name: string, programs: readonly string[], story: (t: Test, bench: Bench) => Promise<void>): void {
  void t.test(name, (t) => {
    onDefaultTransport(t, programs, async (t, transport) => {
      const bench = await openBench(t, transport);
      await story(t, bench);
      await bench.succeed(['stop', '--all']);
      t.same(await bench.traces(), [], 'nothing is left');
      t.match(await memoryOf(bench), { usedBytes: 0, images: [] });
    });
    t.end();
  });
}

async function memoryOf(bench: Bench, limit?: string): Promise<MemoryInfo> {
  const env = limit === undefined ? {} : { FUSETAP_RAM_LIMIT: limit };
  return JSON.parse(await bench.succeed(['memory', '--json'], { env })) as MemoryInfo;
}

/** Writes at random places through one path and reads there through another, from several processes at once. */
const WRITE_HERE_READ_THERE = `
import { openSync, readSync, writeSync } from 'node:fs';
const [here, there, rounds, from, length, seed] = process.argv.slice(1);
const [a, b] = [openSync(here, 'r+'), openSync(there, 'r+')];
let state = Number(seed);
const random = (below) => (state = (state * 48271) % 2147483647) % below;
for (let round = 0; round < Number(rounds); round++) {
  const [to, back] = random(2) ? [a, b] : [b, a];
  const size = 1 + random(70000);
  const at = Number(from) + random(Number(length) - size);
  const written = Buffer.alloc(size, round + 1);
  const read = Buffer.alloc(size);
  if (writeSync(to, written, 0, size, at) !== size) throw new Error('short write');
  if (readSync(back, read, 0, size, at) !== size || !read.equals(written)) throw new Error('round ' + round + ' at ' + at);
}
`;

async function exchange(bench: Bench, here: string, there: string, rounds: number): Promise<void> {
  const share = 8 * MIB;
  const runs = [0, 1, 2, 3].map(async (part) => {
    const words = [here, there, rounds / 4, part * share, share, 1000 + part].map(String);
    const program = ['--input-type=module', '-e', WRITE_HERE_READ_THERE, ...words];
    const { status, stderr } = await bench.execute(process.execPath, program);
    if (status !== 0) throw new Error(stderr);
  });
  await Promise.all(runs);
}

tell('two buses see one image', ['mkfs.ext4', 'dumpe2fs'], async (t, bench) => {
  const image = await bench.image('golden.img', 32 * MIB);
  const before = await readFile(image);
  const uuidOf = (path: string): Promise<string> => bench.sh('dumpe2fs -h "$1" 2>&1 | grep UUID', path);
  for (const choice of ['off', 'auto']) {
    const here = await bench.attach('--passthrough', choice, '--bus', 'a', `ram:${image}`);
    const there = await bench.attach('--passthrough', choice, '--bus', 'b', `ram:${image}`);
    await bench.sh('mkfs.ext4 -q -F "$1"', here);
    t.match(await uuidOf(there), /UUID: +[0-9a-f-]{36}/);
    t.equal(await uuidOf(there), await uuidOf(here));
    await exchange(bench, here, there, 300);

    const [one, other] = await bench.list();
    t.match(one?.share, /^\d+:\d+:\d+$/, 'shared by the identity of the file');
    t.equal(other?.share, one?.share);
    const { images } = await memoryOf(bench);
    t.match(images, [{ image, configuredBytes: 32 * MIB, holders: [{ bus: 'a', vdev: 'xvda' }, { bus: 'b' }] }]);
    t.equal(images.length, 1);
    await bench.detach('--bus', 'a', 'xvda');
    await bench.sh('cmp "$1" "$2" && exit 1; dumpe2fs -h "$1" >&- 2>&-', there, image);
    await bench.detach('--bus', 'b', 'xvda');
  }
  t.ok(before.equals(await readFile(image)), 'the image is untouched');
});

tell('an image is shared under a name', ['cmp'], async (t, bench) => {
  const image = await bench.image('first.img', MIB, MIB);
  const twin = await bench.image('twin.img', MIB);
  const other = await bench.image('other.img', 2 * MIB);
  const dummy = await bench.image('dummy.img', 0);
  const refused = async (status: number, text: RegExp, ...words: string[]): Promise<void> => {
    t.match(await bench.fusetap(['attach', ...words]), { status, stderr: text, stdout: '' }, words.join(' '));
  };
  await refused(2, /nothing is shared as gold.*no image/, 'ram:', '--share', 'gold');
  await refused(2, /nothing is shared as gold.*is empty/, `ram:${dummy}`, '--share', 'gold');
  await refused(2, /not a name/, `ram:${image}`, '--share', '../gold');
  await refused(2, /no memory to share/, `aio:${image}`, '--share', 'gold');

  const first = await bench.attach(`ram:${image}`, '--share', 'gold');
  await bench.sh('printf joined | dd of="$1" conv=notrunc status=none', first);
  for (const spec of [`ram:${image}`, `ram:${dummy}`, 'ram:']) {
    const { status, stdout, stderr } = await bench.fusetap(['attach', '--bus', 'b', spec, '--share', 'gold']);
    t.match({ status, stderr }, { status: 0, stderr: '' }, spec);
    await bench.sh('cmp "$1" "$2"', stdout.trim(), first);
  }
  const joined = await bench.fusetap(['attach', '--bus', 'b', `ram:${twin}`, '--share', 'gold']);
  t.match(joined, { status: 0, stderr: /gold holds .*first\.img.*twin\.img.*same size/ }, 'with a remark');
  await bench.sh('cmp "$1" "$2"', joined.stdout.trim(), first);
  await refused(4, /first\.img with 1048576 bytes.*other\.img with 2097152/, `ram:${other}`, '--share', 'gold');
  t.same(new Set((await bench.list()).map(({ share }) => share)), new Set(['gold']));
  const own = await bench.attach(`ram:${image}`);
  await bench.sh('cmp "$1" "$2"', own, image);
  t.equal((await memoryOf(bench)).images.length, 2, 'without the name it is another memory');
});

tell('a new file is not taken for a removed one that had its inode', ['cmp'], async (t, bench) => {
  const image = await bench.image('golden.img', MIB, MIB);
  await bench.attach(`ram:${image}`);
  await bench.sh('rm "$1"; head -c 1M /dev/urandom > "$1"', image);
  await bench.sh('cmp "$1" "$2"', await bench.attach('--bus', 'b', `ram:${image}`), image);
  t.equal((await memoryOf(bench)).images.length, 2);
});

tell(
  'a sparse image takes what it uses, and gives back what is discarded',
  ['mkfs.ext4', 'losetup', 'fstrim'],
  async (t, bench) => {
    const image = await bench.image('sparse.img', 8 * 2 ** 30, 64 * MIB);
    const resident = async (): Promise<number> => (await memoryOf(bench)).images[0]?.residentBytes ?? Number.NaN;
    const vbd = await bench.attach('--passthrough', 'off', `ram:${image}`);
    t.equal(await resident(), 64 * MIB);
    t.match(await memoryOf(bench), { usedBytes: 64 * MIB, images: [{ configuredBytes: 8 * 2 ** 30 }] });
    await bench.sh('fallocate -p -o 0 -l 32M "$1"', vbd);
    t.equal(await resident(), 32 * MIB, 'punched, and given back at once');
    await bench.sh('fallocate -z -n -o 32M -l 16M "$1"', vbd);
    t.equal(await resident(), 16 * MIB, 'zeroed likewise');

    await bench.sh('mkfs.ext4 -q -F "$1"', vbd);
    const device = await bench.loop(vbd);
    const directory = await bench.makeDirectory('mnt');
    await bench.sh('mount "$1" "$2"; fstrim "$2"; sync -f "$2"', device, directory);
    const empty = await resident();
    await bench.sh('head -c 48M /dev/urandom > "$1/file"; sync -f "$1"', directory);
    t.ok((await resident()) >= empty + 48 * MIB, 'a file takes memory');
    await bench.sh('rm "$1/file"; sync -f "$1"; fstrim "$1"', directory);
    t.ok((await resident()) < empty + 8 * MIB, 'fstrim gives it back');
    await bench.sh('umount "$1"; losetup -d "$2"', directory, device);
    await bench.detach('--wait', '10', vbd);
  },
);

tell('above the limit', ['dd', 'fallocate'], async (t, bench) => {
  const env = { FUSETAP_RAM_LIMIT: '40M' };
  const image = await bench.image('one.img', 100 * MIB, 24 * MIB);
  const other = await bench.image('other.img', 24 * MIB, 24 * MIB);
  const vbd = await bench.succeed(['attach', `ram:${image}`], { env });
  t.equal((await bench.list())[0]?.passthrough, false, 'its whole size does not fit, so threads serve it');
  const refused = await bench.fusetap(['attach', `ram:${other}`], { env });
  t.match(refused, {
    status: 7,
    stderr: /takes 25165824 bytes of memory, 8388608 more.*limit is 41943040, 25165824 are/,
  });
  t.match(await bench.fusetap(['attach', '--bus', 'b', `ram:${other}`], { env }), { status: 7 }, 'on any bus');
  t.match(await bench.fusetap(['attach', '--passthrough', 'on', `ram:${image}`], { env }), { status: 6 });
  t.match(await memoryOf(bench, '40M'), { totalBytes: 40 * MIB, usedBytes: 24 * MIB, freeBytes: 16 * MIB });

  const fill = 'dd if=/dev/zero of="$1" bs=64k seek="$2" count="$3" conv=notrunc status=none';
  await bench.sh(fill, vbd, '384', '256');
  t.match(await bench.try(fill, vbd, '800', '1'), { status: 1, stderr: /No space left/ }, 'no hole can be filled');
  await bench.sh(fill, vbd, '0', '640');
  t.match(await bench.try('fallocate -n -o 90M -l 1M "$1"', vbd), { status: 1, stderr: /No space left/ });
  t.equal((await memoryOf(bench)).images[0]?.residentBytes, 40 * MIB);
  await bench.sh('fallocate -p -o 0 -l 1M "$1"; fallocate -n -o 90M -l 1M "$1"', vbd);
  t.match(await bench.try(fill, vbd, '0', '1'), { status: 1, stderr: /No space left/ });
});

tell('attached and detached, over and over', [], async (t, bench) => {
  const image = await bench.image('golden.img', 4 * MIB, MIB);
  for (let round = 0; round < 20; round++) {
    await bench.attach(`ram:${image}`);
    await bench.detach('xvda');
    if (round % 5 === 0) t.same(await bench.traces(), []);
  }
});

tell('fifty at once, from eight processes', [], async (t, bench) => {
  const image = await bench.image('golden.img', 64 * MIB, 48 * MIB);
  let started = 0;
  const ends: number[] = [];
  const worker = async (bus: number): Promise<void> => {
    while (started++ < 50) {
      const { status, stdout, stderr } = await bench.fusetap(['attach', '--bus', `b${bus % 4}`, `ram:${image}`], {
        timeoutMs: 120_000,
      });
      if (status !== 0) t.fail(stderr);
      else ends.push((await bench.fusetap(['detach', stdout.trim()], { timeoutMs: 120_000 })).status ?? -1);
    }
  };
  await Promise.all(Array.from({ length: 8 }, (_, bus) => worker(bus)));
  t.same(
    ends,
    Array.from({ length: 50 }, () => 0),
  );
  t.same(await bench.traces(), []);
});

tell('a keeper and its server are killed while another bus shares', ['cmp'], async (_t, bench) => {
  const image = await bench.image('golden.img', 16 * MIB, 16 * MIB);
  const here = await bench.attach('--passthrough', 'off', '--bus', 'a', `ram:${image}`);
  const there = await bench.attach('--passthrough', 'off', '--bus', 'b', `ram:${image}`);
  await bench.sh('head -c 1M /dev/urandom > new; dd if=new of="$1" bs=64k seek=3 conv=notrunc status=none', here);
  await bench.sh('cat "$1" > expected', here);
  const dead = (await bench.list()).find(({ bus }) => bus === 'a');
  for (const pid of [dead?.keeperPid, dead?.serverPid]) if (pid) process.kill(pid, 'SIGKILL');
  await bench.sh('cmp "$1" expected', there);
  await eventually(
    'the image has one holder',
    5_000,
    async () => (await memoryOf(bench)).images[0]?.holders.length === 1,
  );
  // also the one who comes now finds it, though the first who published it is dead
  await bench.sh('cmp "$1" expected', await bench.attach('--bus', 'c', `ram:${image}`));
  await bench.sh('printf late | dd of="$1" conv=notrunc status=none; head -c 4 "$2" | grep -q late', there, there);
});

tell('a keeper is killed: its server goes on sharing', ['cmp'], async (_t, bench) => {
  const image = await bench.image('golden.img', MIB, MIB);
  const here = await bench.attach('--passthrough', 'off', '--bus', 'a', `ram:${image}`);
  await bench.sh('printf orphan | dd of="$1" conv=notrunc status=none', here);
  const [vbd] = await bench.list();
  if (vbd?.keeperPid) process.kill(vbd.keeperPid, 'SIGKILL');
  await eventually('the server has published it', 5_000, async () => {
    const { images } = await memoryOf(bench);
    return images[0]?.holders[0]?.pid === vbd?.serverPid;
  });
  await bench.sh('cmp "$1" "$2"', await bench.attach('--bus', 'b', `ram:${image}`), here);
});

tell('a copy that is given up leaves nothing', [], async (t, bench) => {
  const image = await bench.image('large.img', 512 * MIB, 512 * MIB);
  for (const afterMs of [0, 50, 150]) {
    const child = bench.startFusetap(['attach', `ram:${image}`]);
    const end = collect(child);
    const links = (): Promise<string[]> => readdir(join(bench.runtimeDir, 'ram')).catch(() => []);
    await eventually('the copy has begun', 20_000, async () => (await links()).length > 0);
    await delay(afterMs);
    child.kill('SIGINT');
    const { status, signal } = await end;
    t.comment(`${afterMs} ms later: ${signal ?? status}`);
    if (status === 0) await bench.detach('xvda');
    await eventually('nothing is left', 10_000, async () => (await bench.traces()).length === 0);
  }
});

tell('where a copy is given up, the next one copies', ['cmp'], async (t, bench) => {
  const image = await bench.image('large.img', 512 * MIB, 512 * MIB);
  const links = (): Promise<string[]> => readdir(join(bench.runtimeDir, 'ram')).catch(() => []);
  const first = bench.startFusetap(['attach', '--bus', 'a', `ram:${image}`]);
  const end = collect(first);
  await eventually('the copy has begun', 20_000, async () => (await links()).length > 0);
  const second = bench.attach('--bus', 'b', `ram:${image}`);
  await delay(100);
  first.kill('SIGINT');
  t.comment(`the first: ${JSON.stringify(await end)}`);
  await bench.sh('cmp "$1" "$2"', await second, image);
});

tell('what a dead bus left is cleared away', [], async (t, bench) => {
  const image = await bench.image('golden.img', MIB, MIB);
  await bench.attach(`ram:${image}`);
  const [vbd] = await bench.list();
  for (const pid of [vbd?.keeperPid, vbd?.serverPid]) if (pid) process.kill(pid, 'SIGKILL');
  await eventually('no memory', 5_000, async () => (await memoryOf(bench)).images.length === 0);
  await bench.fusetap(['stop']);
  t.same(await bench.traces(), []);
});

tell('saved', ['cmp', 'fio'], async (t, bench) => {
  const image = await bench.image('golden.img', 64 * MIB, 4 * MIB);
  const vbd = await bench.attach('--passthrough', 'off', `ram:${image}`);
  await bench.sh('head -c 1M /dev/urandom | dd of="$1" bs=1M seek=40 conv=notrunc status=none', vbd);
  t.equal(await bench.succeed(['save', 'xvda', 'copy.img']), bench.path('copy.img'));
  await bench.sh('cmp "$1" copy.img; cmp -s "$2" copy.img && exit 1; :', vbd, image);
  const copy = await stat(bench.path('copy.img'));
  t.equal(copy.blocks * 512, 5 * MIB, 'sparse');
  t.equal(copy.mode & 0o777, 0o600);

  t.match(await bench.fusetap(['save', 'xvda', 'copy.img']), { status: 4, stderr: /there already/ });
  await bench.sh('chmod 604 copy.img; chown 12:34 copy.img; ln -s copy.img link.img');
  await bench.succeed(['save', '--force', 'xvda', 'link.img']);
  t.match(await stat(bench.path('copy.img')), { uid: 12, gid: 34, mode: 0o100604 }, 'owner and mode are kept');
  t.match(await bench.fusetap(['save', '--force', 'xvda', '.']), { status: 2 });
  t.match(await bench.fusetap(['save', 'xvda', vbd]), { status: 2, stderr: /on the bus itself/ });
  t.match(await bench.fusetap(['save', 'xvda', 'nowhere/copy.img']), { status: 3 });

  await bench.attach('--bus', 'b', 'copy.img');
  t.match(await bench.fusetap(['save', '--force', 'xvda', 'copy.img']), { status: 4, stderr: /attached with mode w/ });
  await bench.detach('--bus', 'b', 'xvda');
  t.equal(await bench.sh('ls -A | grep -c "copy.img" '), '1', 'no temporary files');
});

tell('saved onto its own image', ['cmp'], async (t, bench) => {
  const image = await bench.image('golden.img', 4 * MIB, MIB);
  const vbd = await bench.attach('--passthrough', 'off', `ram:${image}`);
  await bench.attach('--passthrough', 'off', '--bus', 'b', `ram:${image}`);
  await bench.sh('printf saved | dd of="$1" conv=notrunc status=none', vbd);
  const before = await stat(image);
  await bench.succeed(['save', '--force', 'xvda', image]);
  t.not((await stat(image)).ino, before.ino);
  await bench.sh('cmp "$1" "$2"', vbd, image);
  await bench.attach('--bus', 'c', `ram:${image}`);
  const shares = new Set((await bench.list()).map(({ share }) => share));
  t.equal(shares.size, 1, 'the memory is now the one of the new file');
  t.ok([...shares][0]?.endsWith(`:${(await stat(image)).ino}`));
});

tell('a copy is consistent: no write of either bus falls into it', [], async (t, bench) => {
  const image = await bench.image('golden.img', 32 * MIB, 32 * MIB);
  const here = await bench.attach('--passthrough', 'off', '--bus', 'a', `ram:${image}`);
  const there = await bench.attach('--passthrough', 'off', '--bus', 'b', `ram:${image}`);
  // each pass writes its number to the first block and then to the last: never may the last be ahead of the first
  const writer = `
    import { openSync, writeSync } from 'node:fs';
    const fd = openSync(process.argv[1], 'r+');
    process.on('SIGTERM', () => process.exit(0));
    const pass = (n) => {
      const block = Buffer.alloc(512);
      block.writeUInt32LE(n);
      writeSync(fd, block, 0, 512, Number(process.argv[2]));
      writeSync(fd, block, 0, 512, ${32 * MIB} - 512 - Number(process.argv[2]));
      setImmediate(pass, n + 1);
    };
    pass(1);`;
  const program = ['--input-type=module', '-e', writer];
  const writers = [[here, '0'] as const, [there, '4096'] as const].map(([path, at]) =>
    start(process.execPath, [...program, path, at], bench.options()),
  );
  const ends = writers.map(collect);
  try {
    for (let round = 0; round < 8; round++) {
      await bench.succeed(['save', '--bus', 'a', '--force', 'xvda', 'copy.img']);
      const copy = await readFile(bench.path('copy.img'));
      for (const at of [0, 4096]) {
        const [first, last] = [copy.readUInt32LE(at), copy.readUInt32LE(32 * MIB - 512 - at)];
        t.ok(round === 0 || first === last || first === last + 1, `${first}, then ${last}`);
      }
    }
  } finally {
    for (const child of writers) child.kill('SIGTERM');
    await Promise.all(ends);
  }
});

for (const driver of ['aio', 'sync']) {
  tell(`saved from ${driver}`, ['cmp'], async (t, bench) => {
    const image = await bench.image('disk.img', 4 * MIB, MIB);
    const vbd = await bench.attach(`${driver}:${image}`);
    await bench.succeed(['save', 'xvda', 'copy.img']);
    await bench.sh('cmp "$1" copy.img', vbd);
    t.match(await bench.fusetap(['save', '--force', 'xvda', image]), { status: 4 }, 'its image is in use');
    t.match(await bench.fusetap(['reset', 'xvda']), { status: 6 });
  });
}

tell('reset', ['cmp'], async (t, bench) => {
  const image = await bench.image('golden.img', 4 * MIB, MIB);
  for (const choice of ['off', 'auto']) {
    const vbd = await bench.attach('--passthrough', choice, `ram:${image}`);
    await bench.sh('printf dirt | dd of="$1" conv=notrunc status=none', vbd);
    t.equal(await bench.succeed(['reset', 'xvda']), vbd);
    await bench.sh('cmp "$1" "$2"', vbd, image);
    t.equal((await bench.list())[0]?.passthrough, choice === 'auto');

    await bench.sh('printf dirt | dd of="$1" conv=notrunc status=none; cat "$1" > dirty', vbd);
    const other = await bench.attach('--bus', 'b', `ram:${image}`);
    t.match(await bench.fusetap(['reset', 'xvda']), { status: 4, stderr: /shared with other vbds/ });
    await bench.detach(other);
    await bench.sh('mv "$1" away', image);
    t.match(await bench.fusetap(['reset', 'xvda']), { status: 3 });
    await bench.sh('mv away "$2"; cmp "$1" dirty', vbd, image);
    const holder = bench.sh('exec 5<"$1"; echo held > ready; sleep 3', vbd);
    await eventually('the vbd is held', 5_000, () => stat(bench.path('ready')).catch(() => false));
    t.match(await bench.fusetap(['reset', 'xvda', '--json']), { status: 4, stdout: /"command": "s(h|leep)"/ });
    await holder;
    await bench.sh('rm ready; cmp "$1" dirty', vbd);
    await bench.detach('--wait', '5', 'xvda');
  }
});
