import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import {
  isBusName,
  listBusNames,
  makeBusDirectories,
  makeMountpoint,
  resolveBus,
  runtimeDir,
} from '../../../mount/runtime/bus-place.js';
import { aclLetsOthersWrite } from '../../../mount/runtime/directory-check.js';

/** a user that no machine has */
const STRANGER = 3_987_654;
const uid = process.geteuid?.() ?? 0;
const needsRoot = uid === 0 ? false : 'only root can give files away';

function tempDir(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'fusetap-test-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

t.test('the runtime directory is the first that applies', async (t) => {
  const all = { FUSETAP_RUNTIME_DIR: '/a/run', XDG_RUNTIME_DIR: '/run/user/1000' };
  t.equal(runtimeDir(all, 0), '/a/run');
  t.equal(runtimeDir(all, 1000), '/a/run');
  t.equal(runtimeDir({ XDG_RUNTIME_DIR: '/run/user/1000' }, 0), '/run/fusetap');
  t.equal(runtimeDir({ XDG_RUNTIME_DIR: '/run/user/1000' }, 1000), '/run/user/1000/fusetap');
  t.equal(runtimeDir({ XDG_RUNTIME_DIR: 'relative' }, STRANGER), `/tmp/fusetap-${STRANGER}`);
  t.equal(runtimeDir({ FUSETAP_RUNTIME_DIR: '' }, STRANGER), `/tmp/fusetap-${STRANGER}`, 'empty is not set');
});

t.test('a path with links in it is resolved, as far as it is there', async (t) => {
  const [real, links] = [tempDir(t), tempDir(t)];
  symlinkSync(real, join(links, 'run'));
  t.equal(runtimeDir({ FUSETAP_RUNTIME_DIR: join(links, 'run', 'fusetap') }, uid), join(real, 'fusetap'));
  mkdirSync(join(real, 'bus'));
  t.equal(runtimeDir({ FUSETAP_RUNTIME_DIR: join(links, 'run') }, uid), real);
  t.equal((await resolveBus(join(links, 'run', 'bus', '7'), real)).name, '7', 'the mount of a named bus, too');
  symlinkSync(join(links, 'nowhere'), join(links, 'dangling'));
  const dangling = join(links, 'dangling');
  t.equal(runtimeDir({ FUSETAP_RUNTIME_DIR: dangling }, uid), dangling, 'a link to nowhere is left, to be refused');
  await t.rejects(makeBusDirectories(await resolveBus('0', dangling), uid), { code: 'DENIED' });
});

t.test('the one in /tmp must be ours and 0700', { skip: needsRoot }, async (t) => {
  const path = `/tmp/fusetap-${STRANGER}`;
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  const plant: Record<string, () => void> = {
    'a link': () => symlinkSync('/etc', path),
    'a file': () => writeFileSync(path, ''),
    "somebody else's": () => mkdirSync(path, { mode: 0o700 }),
    'open to others': () => {
      mkdirSync(path);
      chmodSync(path, 0o750);
      chownSync(path, STRANGER, STRANGER);
    },
  };
  for (const [what, make] of Object.entries(plant)) {
    rmSync(path, { recursive: true, force: true });
    make();
    t.throws(() => runtimeDir({}, STRANGER), { code: 'DENIED', hint: /FUSETAP_RUNTIME_DIR/ }, what);
  }
  chmodSync(path, 0o700);
  t.equal(runtimeDir({}, STRANGER), path);
});

t.test('a name is one component of a path, and stays below the runtime directory', async (t) => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('.', '/', 'a', '-', '0', '_', '\n') })),
      (word) => {
        if (!isBusName(word)) return;
        t.equal(basename(join('/run', word)), word);
        t.equal(join('/run', word), `/run/${word}`);
      },
    ),
  );
  for (const word of ['', '.', '..', 'a b', 'a\n', 'ä', 'x'.repeat(65)]) {
    await t.rejects(resolveBus(word, '/run/f'), { code: 'USAGE' }, JSON.stringify(word));
  }
  for (const word of ['0', '...', 'a-b_c.7', '-', 'x'.repeat(64)]) {
    t.match(await resolveBus(word, '/run/f'), {
      name: word,
      path: `/run/f/bus/${word}`,
      stateDir: `/run/f/state/${word}`,
      ownDirectory: false,
    });
  }
});

t.test('a directory has one name, whatever path leads there', async (t) => {
  const runtime = tempDir(t);
  const directory = join(tempDir(t), 'disks');
  mkdirSync(directory);
  symlinkSync(directory, `${directory}-link`);
  const place = await resolveBus(directory, runtime);
  t.match(place, { name: /^dir-[0-9a-f]{16}$/, path: directory, runtimeDir: runtime, ownDirectory: true });
  t.equal(place.stateDir, join(runtime, 'state', place.name));
  for (const word of [`${directory}/`, `${directory}/../disks`, `${directory}-link`]) {
    t.same(await resolveBus(word, runtime), place, word);
  }
  await t.rejects(resolveBus(place.name, runtime), { code: 'NOT_FOUND' }, 'a hash that nobody wrote down');
  mkdirSync(place.stateDir, { recursive: true });
  writeFileSync(join(place.stateDir, 'bus.json'), JSON.stringify({ path: directory }));
  t.same(await resolveBus(place.name, runtime), place, 'the hash is a name of it');
});

t.test('a directory that is missing is not made', async (t) => {
  const path = join(tempDir(t), 'missing');
  await t.rejects(resolveBus(path, '/run/f'), { code: 'NOT_FOUND', hint: `mkdir -p ${path}` });
  t.notOk(existsSync(path));
});

t.test('the mount of a named bus is that bus', async (t) => {
  t.same(await resolveBus('/run/f/bus/7', '/run/f'), await resolveBus('7', '/run/f'));
});

t.test('directories get their modes whatever the umask', async (t) => {
  const umask = process.umask(0o077);
  t.teardown(() => process.umask(umask));
  const runtime = join(tempDir(t), 'parent', 'run');
  const place = await resolveBus('0', runtime);
  await makeBusDirectories(place, uid);
  makeMountpoint(place);
  const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
  t.equal(mode(runtime), uid === 0 ? '755' : '700');
  for (const path of [join(runtime, 'ram'), join(runtime, 'state'), place.stateDir, place.path]) {
    t.equal(mode(path), '700', path);
  }
  await t.resolves(makeBusDirectories(place, uid), 'twice is once');
  t.same(listBusNames(runtime), ['0']);
});

t.test('what is there is checked before anything is made in it', { skip: needsRoot }, async (t) => {
  const above = tempDir(t);
  chmodSync(above, 0o777);
  const place = await resolveBus('0', join(above, 'parent', 'run'));
  await t.rejects(makeBusDirectories(place, uid), {
    code: 'DENIED',
    message: `: others can replace ${above}: its mode`,
  });
  t.notOk(existsSync(join(above, 'parent')));
});

t.test('a directory that only our own group can write is as good, unless its ACL says more', async (t) => {
  const above = tempDir(t);
  chmodSync(above, 0o775);
  const place = await resolveBus('0', join(above, 'run'));
  await t.resolves(makeBusDirectories(place, uid));
  const entry = (tag: number, permissions: number): number[] => [tag, 0, permissions, 0, 0xff, 0xff, 0xff, 0xff];
  const owner = entry(0x01, 7);
  t.notOk(aclLetsOthersWrite(Buffer.from([2, 0, 0, 0, ...owner, ...entry(0x04, 7), ...entry(0x02, 5)])), 'may read');
  t.ok(aclLetsOthersWrite(Buffer.from([2, 0, 0, 0, ...owner, ...entry(0x02, 7)])), 'a user may write');
  t.ok(aclLetsOthersWrite(Buffer.from([2, 0, 0, 0, ...owner, ...entry(0x08, 2)])), 'a group may write');
});

t.test('an ACL that lets another user rename what is below is refused', { skip: needsRoot || noAcl() }, async (t) => {
  const above = tempDir(t);
  execFileSync('setfacl', ['-m', `u:${STRANGER}:rwx`, above]);
  const place = await resolveBus('0', join(above, 'run'));
  await t.rejects(makeBusDirectories(place, uid), { code: 'DENIED', message: /its ACL lets others write/ });
});

/** Why no ACL can be set where the tests are; false where it can. */
function noAcl(): string | false {
  const directory = mkdtempSync(join(tmpdir(), 'fusetap-test-'));
  try {
    execFileSync('setfacl', ['-m', `u:${STRANGER}:rwx`, directory], { stdio: 'ignore' });
    return false;
  } catch {
    return 'setfacl is missing, or refused';
  } finally {
    rmSync(directory, { recursive: true });
  }
}

t.test('no directory is used that others could replace', { skip: needsRoot }, async (t) => {
  const elsewhere = tempDir(t);
  const spoil: Record<string, (runtime: string) => void> = {
    'the runtime directory is a link': (runtime) => symlinkSync(elsewhere, runtime),
    'it belongs to somebody else': (runtime) => {
      mkdirSync(runtime);
      chownSync(runtime, STRANGER, STRANGER);
    },
    'others can write it': (runtime) => {
      mkdirSync(runtime);
      chmodSync(runtime, 0o777);
    },
    'state is a link': (runtime) => {
      mkdirSync(runtime);
      symlinkSync(elsewhere, join(runtime, 'state'));
    },
    'others can rename what is above it': (runtime) => {
      mkdirSync(runtime);
      chmodSync(join(runtime, '..'), 0o777);
    },
    'the group of what is above it can rename it': (runtime) => {
      mkdirSync(runtime);
      chownSync(join(runtime, '..'), uid, STRANGER);
      chmodSync(join(runtime, '..'), 0o775);
    },
    'what is above it belongs to somebody else': (runtime) => {
      mkdirSync(runtime);
      chownSync(join(runtime, '..'), STRANGER, STRANGER);
    },
  };
  for (const [what, make] of Object.entries(spoil)) {
    const runtime = join(tempDir(t), 'run');
    make(runtime);
    const place = await resolveBus('0', runtime);
    await t.rejects(makeBusDirectories(place, uid), { code: 'DENIED' }, what);
    t.notOk(existsSync(place.stateDir), 'nothing was made');
  }
  t.same(listBusNames(join(elsewhere, 'none')), [], 'no runtime directory, no buses');
});
