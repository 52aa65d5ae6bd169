/**
 * Installing and updating, as a user without root does it by npm: the commands are those of README.md. The package is packed
 * from the build that is under test.
 */
import { resolve } from 'node:path';
import t, { type Test } from 'tap';
import { VERSION } from '../../mount/version.js';
import { readPage, readScripts } from '../docs/session.js';
import { isInstalled, type Outcome, output } from '../e2e/command.js';
import { type Bench, forEachWay, JUST_USER, openBench } from '../e2e/fixtures.js';

t.setTimeout(600_000);

const ROOT = resolve(import.meta.dirname, '../../..');
const NPM_LIMIT_MS = 240_000;
/** what npm says if it cannot reach the registry */
const NO_REGISTRY =
  /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED|code E\d{3}/;

const missing = ['bash', 'npm', 'tar', 'mkfs.ext4', 'fuse2fs'].filter((program) => !isInstalled(program));
const skip = missing.length > 0 && `not installed: ${missing.join(', ')}`;
const [install = ''] = readScripts(readPage('README.md', 'Install'));

t.test('README: packing a fresh clone begins with npm ci', async (t) => {
  const words = install.split('\n').map((line) => line.replace(/ *#.*/, ''));
  t.same(words.filter((line) => line !== '').slice(0, 3), [
    'npm ci',
    'npm pack --ignore-scripts=false',
    `npm install -g ./fusetap-${VERSION}.tgz`,
  ]);
});

forEachWay(t, JUST_USER, async (t, transport) => {
  const bench = await openBench(t, transport);
  if (skip !== false) return void t.pass('not tried', { skip });
  await pack(bench);
  const { status, stdout } = await asUser(bench, install.split('\n').find((line) => line.includes('~/.local')) ?? '');
  if (NO_REGISTRY.test(stdout)) return void t.pass('not tried', { skip: `no npm registry: ${stdout.split('\n')[0]}` });
  t.equal(status, 0, stdout);
  await t.test('installs without root and mounts an image', (t) => mountFirstImage(t, bench));
  await t.test('updates by npm while a program writes to a disk', (t) => updateUnderWrites(t, bench));
  t.same(await bench.traces(), [], 'nothing is left');
});

/** The package as a file in the bench, and one of the next version. */
async function pack(bench: Bench): Promise<void> {
  await output('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', bench.directory], {
    cwd: ROOT,
    timeoutMs: NPM_LIMIT_MS,
  });
  const repack = [
    `mkdir next && tar -xzf fusetap-${VERSION}.tgz -C next`,
    `sed -i 's/"version": ".*"/"version": "9.9.9"/' next/package/package.json`,
    'tar -czf fusetap-9.9.9.tgz -C next package; rm -r next; mkdir home; chmod -R a+rX,u+w .; chown 65534 home',
  ];
  await output('sh', ['-euc', repack.join('\n')], { cwd: bench.directory });
}

/** Runs commands in a shell of the user, which has a home and finds the programs that he installed. */
function asUser(bench: Bench, ...lines: string[]): Promise<Outcome> {
  const script = ['exec 2>&1; set -e; export HOME="$PWD/home" PATH="$PWD/home/.local/bin:$PATH"', ...lines];
  return bench.execute('bash', ['-c', script.join('\n')], { timeoutMs: NPM_LIMIT_MS });
}

async function mountFirstImage(t: Test, bench: Bench): Promise<void> {
  const { status, stdout } = await asUser(
    bench,
    'cd; fusetap --version',
    'fusetap create disk.img 16M; mkfs.ext4 -q disk.img; mkdir mnt',
    'fusetap mount disk.img mnt; echo hello > mnt/greeting; fusetap umount mnt',
    'fusetap mount -r disk.img mnt; cat mnt/greeting; fusetap umount mnt',
  );
  t.equal(status, 0, stdout);
  t.match(stdout, new RegExp(`^${VERSION}\\n(.*\\n)*hello\\n$`));
}

async function updateUnderWrites(t: Test, bench: Bench): Promise<void> {
  const { status, stdout } = await asUser(
    bench,
    'cd; fusetap create data.img 1M; V=$(fusetap attach data.img)',
    'while [ ! -e enough ]; do dd if=/dev/urandom of="$V" bs=4k count=8 conv=notrunc,fsync status=none || touch failed; done &',
    'npm install -g --prefix ~/.local --prefer-offline --loglevel=error ../fusetap-9.9.9.tgz',
    'fusetap --version; fusetap upgrade; fusetap show --json | grep -E \'"(restarts|state)"\'',
    'touch enough; wait; [ ! -e failed ] && echo no write failed; fusetap detach "$V"',
  );
  t.equal(status, 0, stdout);
  t.match(stdout, new RegExp(`^9\\.9\\.9\\n.* server 9\\.9\\.9, keeper ${VERSION}$`, 'm'));
  t.match(stdout, /"restarts": 1,\n.*"state": "running",\n(.*\n)*no write failed\n$/);
}
