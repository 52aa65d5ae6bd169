/** Starts of a keeper, replaced by programs that report, break or are slow. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isAlreadyRunning, startKeeper } from '../../../mount/keeper/start.js';
import { resolveBus } from '../../../mount/runtime/bus-place.js';
import { statFields } from '../../../system/proc.js';
import { tempDir } from '../../cli/fake-bus.js';

async function start(t: Test, program: string, log = '', limitMs = 120_000) {
  const runtime = tempDir(t);
  const file = join(runtime, 'keeper.cjs');
  writeFileSync(
    file,
    `const fs = require('fs'); const say = (x) => fs.writeSync(3, JSON.stringify(x) + '\\n');\n${program}`,
  );
  const place = await resolveBus('0', join(runtime, 'run'));
  if (log !== '') {
    const { mkdirSync } = await import('node:fs');
    mkdirSync(place.stateDir, { recursive: true, mode: 0o700 });
    writeFileSync(join(place.stateDir, 'log'), log);
  }
  const result = await startKeeper(place, { persistent: true, program: file, limitMs }).catch(
    (error: unknown) => error,
  );
  return { place, result, log: readFileSync(join(place.stateDir, 'log'), 'utf8') };
}

t.test('a keeper gets its bus as argument, and its report is the result', async (t) => {
  const program = 'console.log(process.argv[2], process.cwd()); say({ ok: true, pid: process.pid });';
  const { place, result, log } = await start(t, program);
  t.match(result, { pid: Number });
  const { name: bus, ...rest } = place;
  const [argument, cwd] = log.trimEnd().split(' ');
  t.same(JSON.parse(argument ?? ''), { bus, ...rest, persistent: true, transport: 'kernel', allowOther: false });
  t.equal(cwd, '/');
  t.equal(statSync(join(place.stateDir, 'log')).mode & 0o777, 0o600);
});

t.test('startKeeper returns after the report, and the keeper goes on', async (t) => {
  const { result } = await start(t, 'say({ ok: true, pid: process.pid }); setTimeout(() => {}, 20_000);');
  const { pid } = result as { pid: number };
  t.teardown(() => process.kill(pid, 'SIGKILL'));
  t.doesNotThrow(() => process.kill(pid, 0));
  const session = statFields(readFileSync(`/proc/${pid}/stat`, 'latin1'))[3];
  t.equal(session, String(pid), 'in a session of its own, so signals of the terminal do not reach it');
});

t.test('a reported error is thrown unchanged', async (t) => {
  const error = { code: 'UNSUPPORTED', message: 'no /dev/fuse', hint: 'modprobe fuse' };
  t.match((await start(t, `say({ error: ${JSON.stringify(error)} });`)).result, { name: 'FusetapError', ...error });
  const busy = (message: string) => start(t, `say({ error: { code: 'BUSY', message: '${message}' } });`);
  t.ok(isAlreadyRunning((await busy('already running: bus 0')).result));
  t.notOk(isAlreadyRunning((await busy('neither runs nor ends')).result));
});

t.test('a keeper that failed has exited when the error is thrown', async (t) => {
  const failing =
    "console.log(process.pid); say({ error: { code: 'DENIED', message: 'no' } }); setTimeout(() => {}, 300);";
  const { result, log } = await start(t, failing);
  t.match(result, { name: 'FusetapError', code: 'DENIED' });
  t.throws(() => process.kill(Number(log), 0), { code: 'ESRCH' });
});

t.test('if a keeper dies without a report, the error has the reason from the log', async (t) => {
  const broken = await start(
    t,
    "throw Object.assign(new Error('out of luck'), { errno: 5 });",
    'from an earlier life\n',
  );
  t.match(broken.result, { code: 'FAILED', message: /keeper of bus 0: Error: out of luck/, hint: /state\/0\/log$/ });
  const silent = await start(
    t,
    'const { stateDir } = JSON.parse(process.argv[2]); fs.writeFileSync(stateDir + "/lock", ""); process.exit(3);',
    'from an earlier life\n',
  );
  t.same(readdirSync(silent.place.stateDir), ['log'], 'its lock is gone');
  t.match(silent.result, { code: 'FAILED', message: 'cannot start the keeper of bus 0: it exited without a report' });
});

t.test('a keeper that does not answer in time is killed, and the error says so', async (t) => {
  const { result, log } = await start(t, 'console.error(process.pid); setInterval(() => {}, 1000);', '', 1_500);
  t.match(result, {
    code: 'FAILED',
    message: 'cannot start the keeper of bus 0: it did not answer within 1.5 s and was killed',
  });
  t.throws(() => process.kill(Number(log), 0), { code: 'ESRCH' });
});
