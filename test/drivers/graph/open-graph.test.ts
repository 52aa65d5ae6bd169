/** Trees of drivers, opened as a server opens them: what each driver is given, and that all is closed again. */
import { closeSync, ftruncateSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { ImageFile } from '../../../drivers/driver.js';
import { findNeeds, measureNode, openGraph, prepareNode, repairNode } from '../../../drivers/graph/open-graph.js';
import { planGraph } from '../../../drivers/graph/plan.js';
import { type FileSpec, type NodeSpec, simpleGraph } from '../../../drivers/graph.js';
import { memfdCreate } from '../../../system/libc.js';
import { emptyImage } from '../growing/driver.js';

/** A driver over a disk, whose bytes it turns; it tells what happens in a global list. */
const TURN = `
const log = (globalThis.fusetapTestLog ??= []);
export default {
  name: 'turn',
  roles: { file: { takes: 'disk', access: 'as-parent' }, more: { takes: 'disk', access: 'read', isOptional: true, many: true } },
  check({ bad }) { if (bad) throw Object.assign(new Error('bad is not good'), { code: 'USAGE' }); },
  async needs({ disks, options }) {
    return options.needs && !disks.more0 ? [{ role: 'more0', name: options.needs, driver: 'aio' }] : [];
  },
  async open({ disks, readOnly, options }) {
    if (options.fails) throw Object.assign(new Error('it does not open'), { errno: 5 });
    log.push('open ' + (options.name ?? '') + ' ' + readOnly + ' ' + Object.keys(disks));
    const { file } = disks;
    return {
      size: file.size,
      async read(buffer, offset) { await file.read(buffer, offset); for (const [i, b] of buffer.entries()) buffer[i] = b ^ 255; },
      async close() { log.push('close ' + (options.name ?? '')); },
      ...(options.activates && { async activate() {
        log.push('activate');
        if (options.activates === 'not') throw Object.assign(new Error('it is fenced'), { errno: 5 });
      } }),
    };
  },
};`;

async function turn(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'graph-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const path = join(directory, 'turn.mjs');
  await writeFile(path, TURN);
  log().splice(0);
  return path;
}

const log = (): string[] => {
  const global = globalThis as { fusetapTestLog?: string[] };
  global.fusetapTestLog ??= [];
  return global.fusetapTestLog;
};

function memory(t: Test, bytes: Uint8Array): ImageFile {
  const fd = memfdCreate('graph');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, bytes.length);
  writeSync(fd, bytes);
  return { fd, path: '/mem', sizeBytes: bytes.length, kind: 'file' };
}

const node = (driver: string, options: Record<string, string>, on: Record<string, NodeSpec | FileSpec>): NodeSpec => {
  return { driver, options, on };
};
const FILE = { file: '/mem' };

t.test('children open before parents, and close after them', async (t) => {
  const path = await turn(t);
  const graph = node(path, { name: 'top' }, { file: node(path, { name: 'low' }, { file: FILE }) });
  const files = { 'file/file': memory(t, Buffer.from('0123456789')) };
  const raw = await openGraph({ graph, files, memories: {}, readOnly: false });
  const bytes = Buffer.alloc(4);
  await raw.read(bytes, 3);
  t.equal(bytes.toString(), '3456', 'turned twice');
  await raw.close();
  t.same(log(), ['open low false file', 'open top false file', 'close top', 'close low']);
});

t.test('a parent that does not open leaves nothing open', async (t) => {
  const path = await turn(t);
  const graph = node(path, { fails: '1' }, { file: node(path, { name: 'low' }, { file: FILE }) });
  const files = { 'file/file': memory(t, Buffer.alloc(10)) };
  await t.rejects(openGraph({ graph, files, memories: {}, readOnly: false }), { message: /it does not open/ });
  t.same(log(), ['open low false file', 'close low']);
});

t.test('what a role only reads is open for reading, with all below it', async (t) => {
  const path = await turn(t);
  const more = node(path, { name: 'more' }, { file: FILE });
  const graph = node(path, { name: 'top' }, { file: FILE, more0: more });
  const files = { file: memory(t, Buffer.alloc(10)), 'more0/file': memory(t, Buffer.alloc(10)) };
  const raw = await openGraph({ graph, files, memories: {}, readOnly: false });
  await raw.close();
  t.same(log().slice(0, 2), ['open more true file', 'open top false file,more0']);
  t.match(await planGraph(graph), {
    files: { file: { isRead: false, isRaw: false }, 'more0/file': { isRead: true, isRaw: false } },
    scratch: {},
    mayNeed: true,
  });
});

t.test('a role that is only read is open for writing if the tree is opened so', async (t) => {
  const path = await turn(t);
  const low = node(path, { name: 'low' }, { file: FILE, more0: node(path, { name: 'lowest' }, { file: FILE }) });
  const graph = node(path, { name: 'top' }, { file: FILE, more0: low });
  const file = (): ImageFile => memory(t, Buffer.alloc(10));
  const files = { file: file(), 'more0/file': file(), 'more0/more0/file': file() };
  const opened = { graph, files, memories: {}, writes: 'more0' };
  await (await openGraph({ ...opened, readOnly: false })).close();
  const written = ['open lowest true file', 'open low false file,more0', 'open top false file,more0'];
  t.same(log().splice(0).slice(0, 3), written, 'what is below it is not');
  await (await openGraph({ ...opened, readOnly: true })).close();
  t.equal(log().filter((line) => / true /.test(line)).length, 3, 'not with mode r');
});

t.test('the plan says what a commit writes', async (t) => {
  const image = (on: Record<string, NodeSpec | FileSpec>): NodeSpec => node('qcow2', {}, { file: FILE, ...on });
  t.match(await planGraph(image({ backing: image({}) })), { base: 'backing' });
  t.match(await planGraph(image({})), { base: null });
  t.match(await planGraph(node('snapshot', {}, { file: image({ backing: FILE }) })), { base: null });
});

t.test('what an image needs is asked until nothing is missing', async (t) => {
  const path = await turn(t);
  const graph = node('ram', {}, { file: node(path, { needs: 'base.img' }, { file: FILE }) });
  const files = { 'file/file': memory(t, Buffer.alloc(10)) };
  const opened = { graph, files, memories: {}, readOnly: false };
  t.same(await findNeeds(opened), [{ role: 'more0', name: 'base.img', driver: 'aio', node: 'file' }]);
  const met = node(path, { needs: 'base.img' }, { file: FILE, more0: FILE });
  const whole = {
    ...opened,
    graph: node('ram', {}, { file: met }),
    files: { ...files, 'file/more0': files['file/file'] },
  };
  t.same(await findNeeds(whole), []);
});

t.test('memory is filled from the tree below it, and opened without it', async (t) => {
  const path = await turn(t);
  const graph = node('ram', {}, { file: node(path, { name: 'low' }, { file: FILE }) });
  const files = { 'file/file': memory(t, Buffer.from([255, 254, 253])) };
  const opened = { graph, files, memories: {}, readOnly: false };
  const { signal } = new AbortController();
  t.same(await measureNode(opened, '', { path: '/mem', signal }), { bytes: 3, sizeBytes: 3 });
  const fd = memfdCreate('graph');
  t.teardown(() => closeSync(fd));
  const state = await prepareNode(opened, '', { fd }, { path: '/mem', signal, progress: () => {} });
  log().splice(0);
  const raw = await openGraph({ graph, files: {}, memories: { '': { memory: { fd }, state } }, readOnly: false });
  const bytes = Buffer.alloc(3);
  await raw.read(bytes, 0);
  t.same([...bytes], [0, 1, 2]);
  t.same(log(), [], 'what it was copied from is not opened');
  await raw.close();
});

const GROWING = fileURLToPath(new URL('../growing/driver.js', import.meta.url));

t.test('the plan says what is repaired, and which files grow', async (t) => {
  const growing = (file: NodeSpec | FileSpec, more = {}) => node(GROWING, {}, { file, ...more });
  const planOf = async (graph: NodeSpec) => {
    const { files, repair } = await planGraph(graph);
    return { repair, grow: Object.keys(files).filter((path) => files[path]?.grows) };
  };
  t.same(await planOf(growing(FILE)), { repair: [''], grow: ['file'] });
  t.same(await planOf(growing(simpleGraph('sync', '/a'))), { repair: [''], grow: ['file/file'] });
  t.same(await planOf(growing(simpleGraph('tar', '/a'))), { repair: [''], grow: [] }, 'a fixed part of a file');
  t.same(await planOf(growing(growing(FILE))), { repair: ['', 'file'], grow: ['file/file'] });
  t.same(
    await planOf(growing(FILE, { backing: growing(FILE) })),
    { repair: [''], grow: ['file'] },
    'backing is only read',
  );
  for (const driver of ['ram', 'snapshot']) {
    t.same(await planOf(node(driver, {}, { file: growing(FILE) })), { repair: [], grow: [] }, driver);
  }
  t.same(await planOf(simpleGraph('aio', '/a')), { repair: [], grow: [] });
});

t.test('a node is repaired over disks that are open for writing, and repaired themselves', async (t) => {
  const [log, size] = [join(t.testdir({}), 'log'), 1 << 20];
  const low = memory(t, Buffer.concat([emptyImage(size), Buffer.alloc(size)]));
  const options = { log };
  const lower = node(GROWING, options, { file: FILE });
  const opened = { graph: lower, files: { file: low }, memories: {}, readOnly: false };
  const inner = await openGraph({ ...opened, repaired: [''] });
  await inner.activate?.();
  await inner.write?.(emptyImage(size / 2, true), 0, { durable: false });
  await inner.close();
  const whole = { ...opened, graph: node(GROWING, options, { file: lower }), files: { 'file/file': low } };
  const { signal } = new AbortController();
  const work = { path: '/img/a.img', signal, progress: () => {} };
  writeFileSync(log, '');
  t.same(await repairNode(whole, 'file', work), []);
  t.match(await repairNode({ ...whole, repaired: ['file'] }, '', work), [/was not closed/]);
  t.same(await repairNode({ ...whole, repaired: ['file'] }, '', work), [], 'the second time there is nothing to do');
  const lines = readFileSync(log, 'utf8').split('\n');
  t.same(lines.filter((line) => !line.startsWith('activate')).slice(0, 3), [
    'repair a.img clean',
    'open w repaired',
    'repair a.img dirty',
  ]);
});

t.test('activate runs once, before the first request', async (t) => {
  const path = await turn(t);
  const files = { file: memory(t, Buffer.alloc(10)) };
  const open = (activates: string) =>
    openGraph({ graph: node(path, { activates }, { file: FILE }), files, memories: {}, readOnly: true });
  const raw = await open('yes');
  t.same(log(), ['open  true file']);
  await Promise.all([raw.read(Buffer.alloc(1), 0), raw.read(Buffer.alloc(1), 1)]);
  await raw.read(Buffer.alloc(1), 2);
  t.same(log(), ['open  true file', 'activate']);
  t.equal(raw.activate, undefined, 'nobody else has to call it');
  await raw.close();
  const broken = await open('not');
  for (let i = 0; i < 2; i++) await t.rejects(broken.read(Buffer.alloc(1), 0), { message: /it is fenced/ });
  t.equal(log().filter((line) => line === 'activate').length, 3, 'one that failed is tried again');
  await broken.close();
});

t.test('a tree that does not fit its drivers is refused before anything is opened', async (t) => {
  const path = await turn(t);
  const cases: [NodeSpec, RegExp][] = [
    [node('aio', {}, { file: simpleGraph('sync', '/a') }), /aio takes a file, not the disk of sync/],
    [node('aio', {}, { file: FILE, other: FILE }), /aio takes nothing under 'other'/],
    [node(path, { bad: '1' }, { file: FILE }), /bad is not good/],
    [node(path, {}, { file: FILE, more: FILE }), /takes nothing under 'more'/],
    [node(path, {}, { file: FILE, more01: FILE }), /takes nothing under 'more01'/],
  ];
  for (const [graph, message] of cases) await t.rejects(planGraph(graph), { code: 'USAGE', message });
  await t.rejects(planGraph(simpleGraph('none', '/a')), { code: 'NOT_FOUND' });
  const opened = { graph: node('aio', {}, {}), files: {}, memories: {}, readOnly: true };
  await t.rejects(openGraph(opened), { code: 'USAGE', message: /aio needs an image/ });
});

t.test('only bytes that are shown as they are must not look like another format', async (t) => {
  const isRaw = async (graph: NodeSpec) => Object.values((await planGraph(graph)).files).map((each) => each.isRaw);
  t.same(await isRaw(simpleGraph('aio', '/a')), [true]);
  t.same(await isRaw(simpleGraph('ram', '/a')), [true]);
  t.same(await isRaw(node('ram', {}, { file: simpleGraph('sync', '/a') })), [true]);
  const path = await turn(t);
  t.same(await isRaw(simpleGraph(path, '/a')), [false]);
  t.same(await isRaw(node(path, {}, { file: simpleGraph('sync', '/a') })), [false]);
});
