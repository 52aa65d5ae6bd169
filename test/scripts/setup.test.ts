/**
 * scripts/setup in a checkout of two files, with fake npm, apt and dpkg: it is silent if everything is there, fetches the
 * guest's kernel once and completely, and goes on without it if it is not available.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import { isInstalled } from '../e2e/command.js';

const SETUP = resolve(import.meta.dirname, '../../../scripts/setup');
const KERNEL = 'node_modules/.cache/guest-kernel';

/** the package that `apt-get download` makes, whose file system `dpkg-deb` then prints */
const FAKES: Readonly<Record<string, string>> = {
  'apt-cache': 'echo "  Depends: linux-image-9.9-cloud-amd64"',
  'apt-get': `
    case "$*" in *download*)
      mkdir -p boot lib/modules/9.9/kernel; echo kernel > boot/vmlinuz-9.9
      for name in virtio virtio_ring unwanted; do echo $name > lib/modules/9.9/kernel/$name.ko; done
      tar cf linux.deb ./boot ./lib; rm -r boot lib;;
    esac`,
  'dpkg-deb': 'cat "$2"',
};

const skip =
  process.geteuid?.() !== 0
    ? 'needs root'
    : process.arch !== 'x64' || !isInstalled('qemu-system-x86_64')
      ? 'no QEMU for this machine'
      : false;

t.test('a kernel for the guest', { skip }, async (t) => {
  await t.test('is fetched once, with its modules in the order of loading', async (t) => {
    const checkout = await makeCheckout(t);
    const first = await checkout.setup();
    t.equal(first.status, 0, first.said);
    t.match(first.said, /^setup: fetching a kernel .*\n$/);
    t.same((await readdir(checkout.path(KERNEL))).sort(), ['10-virtio_ring.ko', '11-virtio.ko', 'vmlinuz']);
    t.equal(await readFile(checkout.path(`${KERNEL}/vmlinuz`), 'utf8'), 'kernel\n');
    const second = await checkout.setup();
    t.same(second, { status: 0, said: '' }, 'nothing is said where all is there');
  });

  for (const fake of ['apt-cache', 'apt-get', 'dpkg-deb']) {
    await t.test(`is done without where ${fake} fails`, async (t) => {
      const checkout = await makeCheckout(t, { ...FAKES, [fake]: 'exit 100' });
      const { status, said } = await checkout.setup();
      t.equal(status, 0, said);
      t.match(said, /could not fetch it: the test of a guest .* will be skipped/);
      t.notOk(existsSync(checkout.path(KERNEL)), 'no part of it is left');
      for (const name of Object.keys(FAKES)) await checkout.fake(name, FAKES);
      t.equal((await checkout.setup()).status, 0);
      t.ok(existsSync(checkout.path(`${KERNEL}/vmlinuz`)), 'the next time it is tried again');
    });
  }
});

for (const version of ['18.20.8', '20.18.3', '21.7.3', '22.11.0']) {
  t.test(`Node ${version} is refused before anything is done`, async (t) => {
    const checkout = await makeCheckout(t, { ...FAKES, node: `echo ${version}` });
    await rm(checkout.path('node_modules/.package-lock.json'));
    const { status, said } = await checkout.setup();
    t.equal(status, 1);
    const wanted = 'the build needs Node 22.12 or later, or 20.19 or later of 20 (';
    t.ok(said.startsWith(`setup: this is Node ${version}: ${wanted}`) && said.endsWith(')\n'), said);
  });
}

interface Checkout {
  path(name: string): string;
  fake(name: string, scripts: Readonly<Record<string, string>>): Promise<void>;
  setup(): Promise<{ status: number; said: string }>;
}

/** A checkout that is built and has its npm packages. */
async function makeCheckout(t: Test, fakes = FAKES): Promise<Checkout> {
  const { path: root, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const path = (name: string): string => join(root, name);
  for (const name of ['bin', 'scripts', 'system', 'dist/system', 'dist/chunks', 'node_modules']) {
    await mkdir(path(name), { recursive: true });
  }
  await copyFile(SETUP, path('scripts/setup'));
  await chmod(path('scripts/setup'), 0o755);
  const files = {
    'package-lock.json': '{"packages":{}}',
    'node_modules/.package-lock.json': '{"packages":{}}',
    'tsconfig.json': '{}',
    'system/a.ts': '',
    'dist/system/a.js': '',
    'dist/.built': '',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(path(name), text);
  const fake: Checkout['fake'] = (name, scripts) =>
    writeFile(path(`bin/${name}`), `#!/bin/sh\n${scripts[name] ?? ''}\n`, { mode: 0o755 });
  for (const name of Object.keys(fakes)) await fake(name, fakes);
  const setup: Checkout['setup'] = () =>
    new Promise((done) => {
      const env = { ...process.env, PATH: `${path('bin')}:${process.env.PATH}` };
      execFile(path('scripts/setup'), { env }, (error, stdout, stderr) => {
        done({ status: error === null ? 0 : Number(error.code), said: stdout + stderr });
      });
    });
  return { path, fake, setup };
}
