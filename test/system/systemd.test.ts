import t from 'tap';
import { isOfUserManager, parseControlGroup, parseTimeSpan, unitInPath } from '../../system/systemd.js';

t.test('the unit of a process is in its control group, of either version', async (t) => {
  const unit = (text: string): string | null => unitInPath(parseControlGroup(text) ?? '');
  t.equal(unit('0::/system.slice/cron.service\n'), 'cron.service');
  t.equal(unit('9:name=systemd:/user.slice/user-0.slice/session-3.scope\n8:pids:/\n0::/\n'), 'session-3.scope');
  t.equal(unit('9:name=systemd:/\n0::/system.slice/job.service\n'), 'job.service', 'a systemd in a container');
  t.equal(unit('0::/init.scope\n'), 'init.scope');
  t.equal(unit('0::/\n'), null);
  t.equal(parseControlGroup(''), null);
  const users = '/user.slice/user-1000.slice/user@1000.service/app.slice/fusetap-bus-0.scope';
  t.ok(isOfUserManager(users));
  t.equal(unitInPath(users), 'fusetap-bus-0.scope');
  t.notOk(isOfUserManager('/user.slice/user-1000.slice/session-3.scope'));
});

t.test('time spans as systemctl prints them', async (t) => {
  t.equal(parseTimeSpan('1min 30s'), 90_000);
  t.equal(parseTimeSpan('3min'), 180_000);
  t.equal(parseTimeSpan('500ms'), 500);
  t.equal(parseTimeSpan('1h 2min 3.5s'), 3_723_500);
  t.equal(parseTimeSpan('infinity'), Number.POSITIVE_INFINITY);
  t.equal(parseTimeSpan(''), 0);
  t.equal(parseTimeSpan('soon'), 0);
});
