import { chmodSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { examine } from '../../../mount/doctor/examine.js';
import { lookAtXenScript, xenChecks } from '../../../mount/doctor/extras.js';
import { kernelVersion, lookAtKernel, lookAtPassthrough, lookAtResend } from '../../../mount/doctor/kernel.js';
import { lookAtLocking } from '../../../mount/doctor/memory.js';
import { findDeadBuses, lookAtRuntimeDir } from '../../../mount/doctor/runtime.js';
import { CAP_IPC_LOCK, CAP_SYS_ADMIN, hasCapability } from '../../../system/capabilities.js';
import { fakeBus, fusetap, tempDir } from '../../cli/fake-bus.js';

t.test('what a kernel of each age has', async (t) => {
  t.same(kernelVersion('6.18.44-x'), [6, 18]);
  const has = (release: string): boolean[] =>
    [lookAtKernel(release), lookAtResend(release), lookAtPassthrough(release, true)].map(({ ok }) => ok);
  t.same(has('4.19.0'), [false, false, false]);
  t.same(has('5.4.0-generic'), [true, false, false]);
  t.same(has('6.8.12'), [true, false, false]);
  t.same(has('6.9.0'), [true, true, true]);
  t.same(has('7.0.1'), [true, true, true]);
  t.equal(lookAtPassthrough('6.18.0', false).ok, false, 'only root may');
  t.match(lookAtResend('6.8.0').hint, /6\.9/);
});

t.test('capabilities, by their bits', async (t) => {
  const status = `Name:\tx\nCapEff:\t${(1n << 21n).toString(16).padStart(16, '0')}\nCapBnd:\tffff\n`;
  t.equal(hasCapability(CAP_SYS_ADMIN, status), true);
  t.equal(hasCapability(CAP_IPC_LOCK, status), false);
  t.equal(hasCapability(CAP_SYS_ADMIN, ''), false);
});

t.test('the limit of locked memory', async (t) => {
  const limits = (soft: string): string =>
    `Max locked memory         ${soft}              ${soft}              bytes\n`;
  t.equal(lookAtLocking(limits('unlimited')).ok, true);
  t.equal(lookAtLocking(limits(String(1 << 30))).ok, true);
  if (!hasCapability(CAP_IPC_LOCK)) t.match(lookAtLocking(limits('65536')), { ok: false, hint: /ulimit -l/ });
});

t.test('the runtime directory', async (t) => {
  const directory = tempDir(t);
  const uid = process.geteuid?.() ?? 0;
  const look = (path: string) => lookAtRuntimeDir({ FUSETAP_RUNTIME_DIR: path }, uid);
  t.equal(look(directory).ok, true);
  t.match(look(join(directory, 'a', 'b')), { ok: true, detail: /will be made/ });
  mkdirSync(join(directory, 'open'));
  chmodSync(join(directory, 'open'), 0o777);
  t.match(look(join(directory, 'open')), { ok: false, detail: /others can write/, hint: /chmod go-w/ });
  writeFileSync(join(directory, 'file'), '');
  t.match(look(join(directory, 'file')), { ok: false, detail: /not a directory/ });
  symlinkSync(directory, join(directory, 'link'));
  t.match(look(join(directory, 'link')), { ok: true, detail: realpathSync(directory) }, 'a link is where it leads');
  t.match(lookAtRuntimeDir({ FUSETAP_RUNTIME_DIR: directory }, uid + 1), { ok: false, detail: /belongs to/ });
});

t.test("Xen's hotplug script, where there are such scripts", async (t) => {
  const directory = t.testdir({ scripts: {}, own: { 'block-fusetap': '' }, other: { 'block-fusetap': '' } });
  const [scripts, own] = [join(directory, 'scripts'), join(directory, 'own/block-fusetap')];
  t.same(xenChecks(join(directory, 'nowhere')), [], 'no line on other hosts');
  t.equal(xenChecks(scripts)[0]?.name, 'xen-script');
  const link = join(scripts, 'block-fusetap');
  const hint = `as root: ln -sf ${own} ${link}`;
  t.match(lookAtXenScript(scripts, own), { ok: false, hint, detail: /not installed/ });
  symlinkSync(own, link);
  t.match(lookAtXenScript(scripts, own), { ok: false, hint }, 'it cannot be executed');
  chmodSync(own, 0o755);
  t.match(lookAtXenScript(scripts, own), { ok: true, detail: link });
  chmodSync(join(directory, 'other/block-fusetap'), 0o755);
  t.match(lookAtXenScript(scripts, join(directory, 'other/block-fusetap')), {
    ok: false,
    detail: /another installation/,
  });
});

t.test('dead buses are named with what clears them away, those that run are not', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, 'alive', () => ({}));
  mkdirSync(join(runtime, 'state', 'dead'), { recursive: true });
  writeFileSync(join(runtime, 'state', 'dead', 'lock'), '');
  const checks = await findDeadBuses(runtime);
  t.same(
    checks.map(({ name }) => name),
    ['bus dead'],
  );
  t.match(await checks[0]?.look(), { ok: false, hint: 'fusetap stop --bus dead' });
});

t.test('the command: a list for people, an object for programs, and the exit status', async (t) => {
  const runtime = tempDir(t);
  const { ok, checks } = await examine({ FUSETAP_RUNTIME_DIR: runtime }, process.geteuid?.() ?? 0);
  t.equal(
    ok,
    checks.every((check) => check.ok || !check.needed),
  );
  const plain = await fusetap(runtime, ['doctor']);
  t.equal(plain.status, ok ? 0 : 6);
  for (const { name } of checks) t.match(plain.stdout, new RegExp(`^[+!-] ${name}\\b`, 'm'));
  const json = JSON.parse((await fusetap(runtime, ['doctor', '--json'])).stdout) as Record<string, unknown>[];
  t.same(Object.keys(json), ['ok', 'checks']);
  for (const check of (json as unknown as { checks: object[] }).checks) {
    t.same(Object.keys(check), ['name', 'ok', 'detail', 'hint']);
  }
});
