/**
 * What users of Xen bring with them: domain files with several disks, xm's verbs, slots by number, and one image in two
 * places.
 */
import { writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import {
  type Bench,
  forEachTransport,
  JUST_USER,
  OTHERS,
  OTHERS_ON_BOTH,
  onDefaultTransport,
  openBench,
  type TestTransport,
} from './fixtures.js';
import { busInfo, killServer } from './kill-server.js';

t.setTimeout(240_000);

/** As a unikernel's build writes it: the disks by number, all else for xl. */
const MIRAGE = (first: string, second: string): string => `
# a MirageOS unikernel
name = 'mirage'
kernel = '/srv/mirage.xen'
memory = 32
on_crash = 'preserve'
vif = [ 'mac=c0:ff:ee:c0:ff:ee,bridge=br0' ]
disk = [ 'format=raw, vdev=51712, access=rw, target=${first}',   # its data
         """tap:aio:${second},51728,r""",
       ]
`;

onDefaultTransport(
  t,
  ['cmp', 'perl'],
  async (t, transport) => {
    await t.test('one image as hda and xvda', async (t) => shareImage(t, await openBench(t, transport)));
    if (transport.runner?.name !== 'namespace') {
      await t.test("xm's verbs", async (t) => useVerbs(t, await openBench(t, transport)));
    }
    if (transport.runner !== undefined) return;
    await t.test('files of a domain that are wrong', async (t) => refuseFiles(t, await openBench(t, transport)));
  },
  OTHERS,
);

forEachTransport(
  t,
  ['cmp'],
  async (t, transport) => {
    await t.test("all disks of a domain's file", async (t) => attachFile(t, await openBench(t, transport)));
  },
  OTHERS_ON_BOTH,
);

t.test('by-slot', (t) => {
  const list = async (t: Test, transport: TestTransport) => listSlots(t, await openBench(t, transport), transport);
  forEachTransport(t, ['cmp', 'find', 'perl'], list, JUST_USER);
  t.end();
});

async function attachFile(t: Test, bench: Bench): Promise<void> {
  const [first, second] = [
    await bench.image('a.img', 1 << 20, 1 << 20),
    await bench.image('b.img', 64 << 10, 64 << 10),
  ];
  const file = bench.path('mirage.xl');
  await writeFile(file, MIRAGE(first, second));
  const { stdout } = await bench.fusetap(['attach', ...bench.transport.options, '--config', file]);
  const directory = `${bench.runtimeDir}/bus/0`;
  t.equal(stdout, `${directory}/xvda\n${directory}/xvdb\n`);
  await bench.sh('cmp "$1/by-slot/51712" "$2"; cmp "$1/by-slot/51728" "$3"', directory, first, second);
  const before = await bench.list();
  t.match(before, [
    { vdev: 'xvda', image: first, mode: 'w' },
    { vdev: 'xvdb', image: second, mode: 'r' },
  ]);
  await bench.detach('--all');
  t.same(await bench.traces(), []);

  const { name, runner } = bench.transport;
  if (name === 'fuse-native' || runner !== undefined) return;
  await t.test('and once more, as ls --json tells of them', (t) => attachList(t, bench, before));
}

/** @param before what was attached */
async function attachList(t: Test, bench: Bench, before: readonly VbdInfo[]): Promise<void> {
  const [first, second] = before.map(({ image }) => image) as [string, string];
  const file = bench.path('mirage.xl');
  const [one, other] = before.map((vbd) => ({ ...vbd, filters: vbd.vdev === 'xvdb' ? ['offset=1K'] : [] }));
  if (other !== undefined) other.size -= 1024;
  await writeFile(bench.path('disks.json'), JSON.stringify([one, other]));
  const again = JSON.parse(await bench.attach('--config', 'disks.json', '--json')) as VbdInfo[];
  t.match(
    again,
    [one, other].map((vbd) => ({ vdev: vbd?.vdev, image: vbd?.image, mode: vbd?.mode, size: vbd?.size })),
  );
  // one that is there already: nothing of the file is attached, and nothing of what was there is taken away
  await writeFile(file, `${MIRAGE(first, second)}disk = [ '${first},xvdc,w!', 'ram:${second},xvda,w' ]\n`);
  const refused = await bench.fusetap(['attach', '--config', file, '--json']);
  t.equal(refused.status, 4);
  t.match(refused.stderr, `fusetap: ${file}:11: slot 51712 (xvda) of bus 0 is taken`);
  t.match(JSON.parse(refused.stdout), { error: { code: 'BUSY', holders: [{ bus: '0', vdev: 'xvda' }] } });
  t.same(
    (await bench.list()).map(({ vdev }) => vdev),
    ['xvda', 'xvdb'],
  );
  await bench.detach('--all');
  t.same(await bench.traces(), []);
}

async function refuseFiles(t: Test, bench: Bench): Promise<void> {
  const [first, second] = [await bench.image('a.img', 1 << 20), await bench.image('b.img', 64 << 10)];
  const file = bench.path('mirage.xl');
  const wrong: [text: string, status: number, message: RegExp][] = [
    [`disk = [ 'aio:${first},xvda,w',\n\n 'aio:${second},xvdb,rw' ]`, 2, /mirage\.xl:3: .*no mode 'rw'/],
    [`disk = [ 'aio:${first},xvda,w', 'aio:/nowhere,xvdb,w' ]`, 3, /mirage\.xl:1: \/nowhere: no such image/],
    ['memory = 32', 2, /no disk in .*mirage\.xl/],
    ["disk = 'a,b,c'", 2, /mirage\.xl: .*line 1: disk is not a list/],
    [
      `[{"image":"${first}"},{"image":"${second}","vdve":"xvdb"}]`,
      2,
      /mirage\.xl: entry 2: unknown key of a disk: 'vdve'/,
    ],
    ['{"image":"a.img"}', 2, /mirage\.xl: not an array/],
    ['[1', 2, /mirage\.xl: not JSON/],
  ];
  for (const [text, status, message] of wrong) {
    await writeFile(file, text);
    const outcome = await bench.fusetap(['attach', '--config', file]);
    t.equal(outcome.status, status, text);
    t.match(outcome.stderr, message);
    t.match(outcome.stderr, /^fusetap: [^\n]+\n$/);
  }
  t.equal((await bench.fusetap(['attach', '--config', file, first])).status, 2, 'a SPEC beside it');
  t.equal((await bench.fusetap(['attach', '--config', 'nowhere'])).status, 3, 'no such file');
  t.same(await bench.traces(), [], 'nothing is left of any of them');
}

async function shareImage(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const [hda, xvda] = [await bench.attach(`tap:aio:${image},hda,w!`), await bench.attach(`tap:aio:${image},xvda,w!`)];
  const [one, other] = [await Client.open(t, bench, 'write', hda), await Client.open(t, bench, 'write', xvda)];
  for (let i = 0; i < 8; i++) {
    const [writer, path] = i % 2 === 0 ? [one, xvda] : [other, hda];
    t.equal(await writer.call('write', i * 4099, 5000, String(i)), '5000');
    const read = 'dd if="$1" bs=1 skip=$2 count=5000 status=none | tr -d "$3" | wc -c';
    t.equal(
      (await bench.sh(read, path, String(i * 4099), String(i))).trim(),
      '0',
      `write ${i} is seen through the other`,
    );
  }
  await Promise.all([one.release(), other.release()]);
  await bench.sh('cmp "$1" "$2"; cmp "$1" "$3"', image, hda, xvda);
  await bench.detach('--all');
}

async function useVerbs(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('c.img', 1 << 20, 4096);
  const words = ['block-attach', '7', `tap:aio:${image}`, '/dev/xvdb', 'w', '0'];
  t.same(await bench.fusetap(words), { status: 0, signal: null, stdout: '', stderr: '' }, 'as quiet as xm');
  await bench.succeed(['block-attach', '7', `file:${await bench.image('d.img', 4096)}`, 'hda', 'r']);
  const directory = `${bench.runtimeDir}/bus/7`;
  const client = await Client.open(t, bench, 'read', `${directory}/xvdb`);
  const table = [
    'Vdev  BE handle state evt-ch ring-ref BE-path',
    `768    0    0     1      -1     -1    ${directory}/hda`,
    `51728  0    0     4      -1     -1    ${directory}/xvdb`,
  ];
  t.equal(await bench.succeed(['block-list', '7']), table.join('\n'));
  t.match(JSON.parse(await bench.succeed(['block-list', '7', '--json'])), [{ vdev: 'hda' }, { vdev: 'xvdb' }]);
  const busy = await bench.fusetap(['block-detach', '7', 'xvdb']);
  t.equal(busy.status, 4);
  t.match(busy.stderr, `pid ${client.pid} `);
  await client.release();
  t.equal((await bench.fusetap(['block-attach', '7', image, 'xvdb', 'rw'])).status, 2, 'no mode of xm');
  t.equal((await bench.fusetap(['block-attach', '7', image, 'xvdb'])).status, 2, 'a word is missing');
  t.equal((await bench.fusetap(['block-list', '7', '--bus', '8'])).status, 2);
  await bench.succeed(['block-detach', '7', '51728']);
  t.equal((await bench.fusetap(['block-detach', '7', 'xvdb'])).status, 3);
  await bench.succeed(['block-detach', '7', 'hda', '-f']);
  t.equal((await bench.fusetap(['block-list', '7'])).status, 3);
  t.same(await bench.traces(), []);
}

async function listSlots(t: Test, bench: Bench, { abilities }: TestTransport): Promise<void> {
  const image = await bench.image('a.img', 1 << 20, 1 << 20);
  const root = await bench.begin();
  const plain = async (): Promise<string> => {
    const lines = await bench.sh('cd "$1"; find . -printf "%P %y %l\\n" | LC_ALL=C sort', root);
    return lines.replaceAll(/ +$/gm, '');
  };
  const directories = [' d', 'by-label d', 'by-partlabel d', 'by-partuuid d', 'by-slot d'];
  t.equal(await plain(), [...directories, 'by-uuid d'].join('\n'), 'of a bus without vbds');
  await bench.attach(image, 'xvda', 'r');
  await bench.attach(`ram:${image}`, 'xvdaa');
  const links = ['by-slot/268442112 l ../xvdaa', 'by-slot/51712 l ../xvda'];
  const both = [...directories, ...links, 'by-uuid d', 'xvda f', 'xvdaa f'].join('\n');
  t.equal(await plain(), both);
  await bench.sh('cmp "$1/by-slot/51712" "$2"; cmp "$1/by-slot/268442112" "$2"', root, image);
  const shown = JSON.parse(await bench.succeed(['show', `${root}/by-slot/268442112`, '--json'])) as { vdev: string };
  t.equal(shown.vdev, 'xvdaa', 'a link names its vbd to commands too');
  for (const script of ['mkdir x', 'rm 51712', 'ln -s ../xvda 1', 'mv 51712 1', 'touch x', 'chmod -R 700 .']) {
    t.not((await bench.try(`cd "$1/by-slot"; ${script}`, root)).status, 0, `not for us to change: ${script}`);
  }
  if (abilities.restart) {
    const held = await Client.open(t, bench, 'path', `${root}/by-slot`);
    await killServer(bench);
    t.equal(await plain(), both, 'the next server shows the same');
    await bench.sh('cmp "$1/by-slot/51712" "$2"', root, image);
    await eventually('another server', 10_000, async () => (await busInfo(bench)).state === 'running');
    await bench.succeed(['upgrade']);
    t.equal(await plain(), both, 'and the one after an upgrade');
    await bench.sh('cmp "/proc/$1/root$2/by-slot/51712" "$3"', String(held.pid), root, image);
    await held.release();
  }
  const client = await Client.open(t, bench, 'read', `${root}/by-slot/51712`);
  const busy = await bench.fusetap(['detach', 'xvda']);
  t.equal(busy.status, 4, 'what is open through the link is held');
  t.match(busy.stderr, `pid ${client.pid} `);
  await client.release();
  await bench.detach('xvda');
  t.equal(await plain(), [...directories, 'by-slot/268442112 l ../xvdaa', 'by-uuid d', 'xvdaa f'].join('\n'));
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}
