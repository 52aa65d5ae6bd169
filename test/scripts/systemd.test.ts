import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { isInstalled } from '../e2e/command.js';

const UNITS = fileURLToPath(new URL('../../../scripts/systemd/', import.meta.url));
const skip = isInstalled('systemd-analyze') ? false : 'systemd-analyze is not installed';

t.test('systemd finds nothing wrong with the units', { skip }, async (t) => {
  const names = readdirSync(UNITS);
  const units = ['bus', 'export', 'mount', 'vbd'];
  t.same(
    names,
    units.map((unit) => `fusetap-${unit}@.service`),
  );
  // it takes a template as an instance of it, and prints what it dislikes, whatever its exit status is
  const verify = promisify(execFile)('systemd-analyze', ['verify', '--man=no', ...names.map((name) => UNITS + name)]);
  t.same(await verify, { stdout: '', stderr: '' });
});

t.test('the unit of a bus waits for its users before it uses force', async (t) => {
  const unit = readFileSync(`${UNITS}fusetap-bus@.service`, 'utf8');
  const [, stop = ''] = /^ExecStop=.* exec fusetap (.*)'$/m.exec(unit) ?? [];
  const [, seconds = ''] = /^stop --bus %i --wait (\d+)$/.exec(stop) ?? [];
  t.ok(Number(seconds) > 0 && Number(seconds) < 90, `${stop}: longer than at once, shorter than systemd's own limit`);
  t.match(unit, /^ExecStopPost=.*fusetap stop .*--force/m);
});
