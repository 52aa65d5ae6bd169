/** Drivers of others: what is loaded, and what is said of one that breaks the contract. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FusetapError } from '../../drivers/errors.js';
import { withFilters } from '../../drivers/filters/with-filters.js';
import { loadDriver } from '../../drivers/registry.js';
import { checkDisk, checkDriver } from '../../drivers/third-party.js';

const CONTEXT = { files: {}, disks: {}, memory: null, state: null, readOnly: false, isRepaired: true, options: {} };

async function driverFile(t: Test, text: string, name = 'mine.mjs'): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'driver-'));
  t.teardown(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, name), text);
  return join(directory, name);
}

const DISK = '{ size: 5, async read(buffer) { buffer.fill(this.size); }, async close() {} }';

for (const [name, head] of [
  ['mine.mjs', 'export default'],
  ['mine.cjs', 'module.exports ='],
] as const) {
  t.test(`a driver is the default export: ${name}`, async (t) => {
    const text = `${head} { name: 'mine', image: 'none', disk: ${DISK}, async open() { return this.disk; } };`;
    const driver = await loadDriver(await driverFile(t, text, name));
    t.match(driver, { name: 'mine', roles: {}, prepare: undefined });
    const raw = await withFilters(await driver.open(CONTEXT), [{ name: 'sizelimit', value: '3' }]);
    const bytes = Buffer.alloc(3);
    await raw.read(bytes, 0);
    t.same([...bytes], [5, 5, 5], 'this is the disk');
  });
}

t.test('a file that is no driver', async (t) => {
  const cases: [text: string, code: string, message: RegExp][] = [
    ['', 'UNSUPPORTED', /its default export is missing, not an object/],
    ['export default 5', 'UNSUPPORTED', /its default export is a number/],
    ['export default {}', 'UNSUPPORTED', /its name is missing/],
    ['export default { name: "Mine" }', 'UNSUPPORTED', /its name is 'Mine'/],
    ['export default { name: "mine" }', 'UNSUPPORTED', /its image is missing, not 'required' or 'none'/],
    ['export default { name: "mine", image: "none" }', 'UNSUPPORTED', /it has no open/],
    ['export default { name: "mine", image: "none", open: 1 }', 'UNSUPPORTED', /its open is a number/],
    ['import "no-such-package"', 'FAILED', /cannot be loaded: Error: Cannot find package/],
    ['export default {', 'FAILED', /cannot be loaded: SyntaxError/],
    ['throw new Error("not today")', 'FAILED', /cannot be loaded: Error: not today/],
  ];
  for (const [text, code, message] of cases) {
    const path = await driverFile(t, text);
    await t.rejects(loadDriver(path), { code, message, hint: /./ }, text);
    const error = (await loadDriver(path).catch((reason: unknown) => reason)) as FusetapError;
    t.ok(error.message.includes(path), 'the message names the file');
  }
  await t.rejects(loadDriver('/nowhere/mine.js'), { code: 'NOT_FOUND', message: /'\/nowhere\/mine\.js'/ });
});

t.test('each part of a driver', async (t) => {
  const good = { name: 'mine', image: 'none', open() {} };
  t.match(checkDriver(good, '/mine.js'), { name: 'mine', roles: {} });
  const cases: [object, RegExp][] = [
    [{ ...good, prepare: true }, /its prepare is a boolean, not a function/],
    [{ ...good, sharesMemory: 'yes' }, /its sharesMemory is 'yes', not a boolean/],
    [{ ...good, sharesMemory: true }, /no prepare/],
    [{ ...good, roles: 5 }, /its roles are a number/],
    [{ ...good, roles: { File: {} } }, /a role is 'File'/],
    [{ ...good, roles: { file: { takes: 'tape', access: 'read' } } }, /file takes 'tape'/],
    [{ ...good, roles: { file: { takes: 'disk' } } }, /file has the access missing/],
    [{ ...good, roles: {}, scratch: 'both' }, /its scratch is 'both'/],
    [{ ...good, roles: {}, scratch: 'own' }, /no prepare/],
    [{ ...good, roles: {}, needs: 1 }, /its needs is a number/],
    [{ ...good, roles: {}, repair: [] }, /its repair is a object, not a function/],
    [{ ...good, roles: {}, grows: 'yes' }, /its grows is 'yes', not a boolean/],
  ];
  for (const [driver, message] of cases)
    t.throws(() => checkDriver(driver, '/mine.js'), { code: 'UNSUPPORTED', message });
});

t.test('each part of a disk', async (t) => {
  const good = { size: 512, read() {}, close() {} };
  t.equal(checkDisk(good, 'mine'), good);
  const window = { fd: 3, start: 0, size: 512, kind: 'file', readOnly: false, durable: false };
  checkDisk({ ...good, window }, 'mine');
  const cases: [unknown, RegExp][] = [
    [undefined, /the disk that driver mine opened breaks the contract: it is missing/],
    [{ ...good, size: undefined }, /its size is missing/],
    [{ ...good, size: 0 }, /its size is 0/],
    [{ ...good, size: '512' }, /its size is '512'/],
    [{ ...good, size: 1.5 }, /its size is 1\.5/],
    [{ ...good, read: undefined }, /it has no read/],
    [{ ...good, close: undefined }, /it has no close/],
    [{ ...good, write: {} }, /its write is a object, not a function/],
    [{ ...good, window: null }, /its window/],
    [{ ...good, growth: true }, /its growth is not {measure, grow}/],
    [{ ...good, growth: { measure() {} } }, /its growth is not {measure, grow}/],
    [{ ...good, window: { ...window, size: 5 } }, /its window/],
    [{ ...good, window: { ...window, fd: -1 } }, /its window/],
    [{ ...good, window: { ...window, kind: 'pipe' } }, /its window/],
  ];
  for (const [disk, message] of cases) t.throws(() => checkDisk(disk, 'mine'), { code: 'UNSUPPORTED', message });
});

t.test('errors of a driver keep their code, whatever class they are', async (t) => {
  const throwing = async (error: string): Promise<unknown> => {
    const text = `export default { name: 'mine', image: 'none', open() { throw ${error}; } };`;
    const driver = await loadDriver(await driverFile(t, text));
    return driver.open(CONTEXT).catch((reason: unknown) => reason);
  };
  const cases: [string, object][] = [
    [`Object.assign(new Error('no url'), { code: 'USAGE', hint: 'give one' })`, { code: 'USAGE', hint: 'give one' }],
    [`Object.assign(new Error('gone'), { code: 'ENOENT', errno: -2 })`, { code: 'NOT_FOUND', errno: 2 }],
    [`new TypeError('oops')`, { code: 'FAILED', message: 'driver mine: oops' }],
    [`'a string'`, { code: 'FAILED', message: 'driver mine: a string' }],
    ['null', { code: 'FAILED' }],
  ];
  for (const [error, expected] of cases) {
    const thrown = await throwing(error);
    t.ok(thrown instanceof FusetapError);
    t.match(thrown, expected, error);
  }
});

t.test('a disk that a filter does not fit is closed again', async (t) => {
  const text = `export default { name: 'mine', image: 'none', async open({ options }) {
    return { size: 5, async read() {}, async close() { globalThis[options.key] = true; } };
  } };`;
  const driver = await loadDriver(await driverFile(t, text));
  const options = { key: 'fusetap-test-closed' };
  await t.rejects(withFilters(await driver.open({ ...CONTEXT, options }), [{ name: 'offset', value: '5' }]), {
    code: 'USAGE',
  });
  t.equal((globalThis as Record<string, unknown>)[options.key], true);
});

t.test('what a driver remarks about a repair is a list of texts', async (t) => {
  const repairing = async (result: string) => {
    const roles = '{ file: { takes: "file", access: "as-parent" } }';
    const text = `export default { name: 'mine', roles: ${roles}, async repair() { ${result} }, async open() {} }`;
    const { repair } = await loadDriver(await driverFile(t, text));
    const { signal } = new AbortController();
    return await repair?.({ files: {}, disks: {}, options: {}, path: '/a', signal, progress: () => {} });
  };
  t.same(await repairing('return ["it was dirty"]'), ['it was dirty']);
  t.same(await repairing(''), []);
  for (const wrong of ['return "it was dirty"', 'return [5]', 'return null']) {
    await t.rejects(repairing(wrong), { code: 'UNSUPPORTED', message: /not a list of texts/ }, wrong);
  }
  await t.rejects(repairing('throw new Error("no")'), { code: 'FAILED', message: /driver mine: no/ });
});
