import t from 'tap';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import { loadDriver } from '../../drivers/registry.js';

t.test('each built-in driver is found under its own name', async (t) => {
  for (const name of driverNames) t.equal((await loadDriver(name)).name, name);
});

for (const name of ['qcow3', '', 'constructor', '__proto__', './driver.js', 'AIO']) {
  t.test(`no driver is called ${JSON.stringify(name)}`, async (t) => {
    const error = await loadDriver(name).catch((reason: unknown) => reason);
    t.ok(error instanceof FusetapError);
    t.match(error, { code: 'NOT_FOUND', hint: /aio, .*sync/ });
    t.match((error as Error).message, quoted(name));
  });
}
