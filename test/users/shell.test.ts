/** What users of a shell wished for in public reports of other tools. */
import { symlink, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { eventually } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';
import { abortAt, ServedImage } from '../survival/sick-disks.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const LIBRARY = fileURLToPath(new URL('../../mount/index.js', import.meta.url));

const WISHES: Record<string, (t: Test, bench: Bench) => Promise<void>> = {
  'attaches an image whose name is not UTF-8, through a link': attachOddName,
  'attaches and runs from a program whose working directory was deleted': useLibraryFromDeleted,
  'lists the other disks at once while the file system of one hangs': listWhileOneHangs,
};

onDefaultTransport(t, ['dd', 'qemu-storage-daemon'], async (t, transport) => {
  for (const [name, wish] of Object.entries(WISHES)) {
    await t.test(name, async (t) => {
      const bench = await openBench(t, transport);
      await wish(t, bench);
      await eventually('nothing is left', 20_000, async () => (await bench.traces()).length === 0);
    });
  }
});

/** nodejs/node-v0.x-archive #2387 */
async function attachOddName(t: Test, bench: Bench): Promise<void> {
  const name = Buffer.concat([Buffer.from(bench.path('odd')), Buffer.from([0xff, 0x2e])]);
  await writeFile(name, Buffer.alloc(MIB, 'x'));
  const link = bench.path('link.img');
  await symlink(name, link);
  const vbd = await bench.attach(link);
  await bench.sh('printf NEW | dd of="$1" bs=1 conv=notrunc,fsync status=none', vbd);
  await bench.succeed(['upgrade']);
  t.match(JSON.parse(await bench.succeed(['ls', '--json'])) as VbdInfo[], [{ image: link, changedOutside: false }]);
  await bench.succeed(['detach', link]);
  t.equal(await bench.sh('head -c 4 "$1"', link), 'NEWx');

  // the shell passes bytes that no JavaScript string has
  const typed = bench.try(`exec "$1" "$2" attach "$(printf 'odd\\377.')"`, process.execPath, bench.program);
  const refused = { status: 3, stderr: /^fusetap: [^\n]*not UTF-8: [^\n]*ln -s[^\n]*\n$/ };
  t.match(await typed, refused);
  const descriptor = `exec 7<>"$3"; exec "$1" "$2" attach /dev/fd/7`;
  t.match(await bench.try(descriptor, process.execPath, bench.program, link), refused);
  // the bus has other descriptors: it must not use one of those
  t.match(await bench.fusetap(['attach', '/dev/fd/77']), { status: 3, stderr: /no such image/ });
}

async function useLibraryFromDeleted(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const script = `
    import { attach, detach, openDisk } from '${LIBRARY}';
    const vbd = await attach('${image}', { mode: 'r' });
    await detach(vbd);
    const disk = await openDisk('${image}', { mode: 'r' });
    console.log(vbd.vdev, disk.size);
    await disk.close();
    for (const open of [attach, openDisk]) await open('disk.img').catch(({ code, message }) => console.log(code, message));
  `;
  await writeFile(bench.path('program.mjs'), script);
  const run = 'mkdir gone; cd gone; rmdir ../gone; exec "$1" "$2"';
  const { stdout, stderr } = await bench.try(run, process.execPath, bench.path('program.mjs'));
  const refused = 'NOT_FOUND the working directory was deleted, or cannot be entered\n';
  t.equal(stdout, `xvda ${MIB}\n${refused}${refused}`, stderr);
}

/** epam/cloud-pipeline #4334 */
async function listWhileOneHangs(t: Test, bench: Bench): Promise<void> {
  const served = await ServedImage.begin(t, bench, 'remote.img', MIB);
  t.teardown(() => abortAt(served.path));
  await bench.succeed(['attach', '--bus', 'remote', served.path]);
  await bench.succeed(['attach', '--bus', 'local', await bench.image('local.img', MIB)]);
  await served.stop();
  try {
    const { stdout } = await bench.fusetap(['ls', '--json'], { timeoutMs: 15_000 });
    t.match(JSON.parse(stdout), [{ bus: 'local' }, { bus: 'remote' }]);
    t.match(await bench.fusetap(['ls', '--bus', 'local'], { timeoutMs: 15_000 }), { status: 0, stdout: /local\.img/ });
  } finally {
    served.goOn();
  }
  for (const bus of ['local', 'remote']) await bench.succeed(['stop', '--bus', bus]);
  await served.end(bench);
}
