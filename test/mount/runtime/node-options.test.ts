/** How servers run. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import t from 'tap';
import { keeperEnvironment, serverEnvironment } from '../../../mount/runtime/node-options.js';

const OWN = 'glibc.cpu.x86_non_temporal_threshold=32768';
/** the dynamic linker of glibc on x86, which is the only one to look at it */
const LINKER = '/lib64/ld-linux-x86-64.so.2';

t.test('a server has the environment of its keeper, and memcpy told when to write past the cache', async (t) => {
  t.same(serverEnvironment({ HOME: '/root' }), { HOME: '/root', GLIBC_TUNABLES: OWN });
  t.same(keeperEnvironment({ HOME: '/root' }), { HOME: '/root', UV_THREADPOOL_SIZE: '16' });
  t.same(serverEnvironment(keeperEnvironment({})), { GLIBC_TUNABLES: OWN }, 'the pool of a keeper is its own');
  const given = 'glibc.malloc.check=1:glibc.cpu.x86_non_temporal_threshold=65536';
  const wanted = { GLIBC_TUNABLES: `${OWN}:${given}`, UV_THREADPOOL_SIZE: '8' };
  t.same(serverEnvironment({ GLIBC_TUNABLES: given, UV_THREADPOOL_SIZE: '8' }), wanted, 'what the user has set counts');
});

t.test(
  'as glibc takes it',
  { skip: canList() ? false : `there is no ${LINKER} that lists what it takes` },
  async (t) => {
    const threshold = (given?: string): string => {
      const env = serverEnvironment(given === undefined ? {} : { GLIBC_TUNABLES: given });
      const list = execFileSync(LINKER, ['--list-tunables'], { encoding: 'utf8', env });
      return /x86_non_temporal_threshold: (0x[0-9a-f]+)/.exec(list)?.[1] ?? list;
    };
    t.equal(threshold(), '0x8000');
    t.equal(threshold('glibc.cpu.x86_non_temporal_threshold=65536'), '0x10000', 'what the user has set himself counts');
  },
);

/** Since glibc 2.33. */
function canList(): boolean {
  return existsSync(LINKER) && spawnSync(LINKER, ['--list-tunables'], { stdio: 'ignore' }).status === 0;
}
