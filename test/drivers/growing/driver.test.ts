/** A format whose image grows must pass the suite: so do `growth` and all that forwards it. */
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { NodeSpec } from '../../../drivers/graph.js';
import { pieceBytes } from '../../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../../conformance/suite.js';
import { openTreeDisk } from '../graph-factory.js';
import { emptyImage, GRANULE } from './driver.js';

const DRIVER = fileURLToPath(new URL('./driver.js', import.meta.url));

function factoryOver(below: (path: string) => NodeSpec['on'][string]): DiskFactory {
  return async ({ size, pieces, readOnly }) => {
    const directory = await mkdtemp(join(tmpdir(), 'growing-'));
    const path = join(directory, 'image');
    await writeFile(path, emptyImage(size, true));
    const graph: NodeSpec = { driver: DRIVER, options: {}, on: { file: below(path) } };
    const made = await openTreeDisk(graph, false);
    for (const piece of pieces) await made.write?.(pieceBytes(piece), piece.offset, { durable: false });
    await made.close();
    const reopen = () => openTreeDisk(graph, readOnly);
    return { raw: await reopen(), reopen, dispose: () => rm(directory, { recursive: true }) };
  };
}

const abilities = { maxSizeBytes: 2 ** 30, holes: false, shrink: false };
diskSuite({ name: 'growing', test: t, factory: factoryOver((file) => ({ file })), abilities, runs: 4 });
diskSuite({
  name: 'growing over sync',
  test: t,
  factory: factoryOver((file) => ({ driver: 'sync', options: {}, on: { file: { file } } })),
  abilities: { ...abilities, maxSizeBytes: 2 ** 26 },
  runs: 1,
});

t.test('the image has the size of what was written', async (t) => {
  const path = join(t.testdir({}), 'image');
  await writeFile(path, emptyImage(100 * GRANULE));
  const raw = await openTreeDisk({ driver: DRIVER, options: {}, on: { file: { file: path } } }, false);
  await raw.write?.(Buffer.alloc(10, 1), 50 * GRANULE - 5, { durable: false });
  await raw.close();
  t.equal((await stat(path)).size, 4 * GRANULE, 'a header, a table and two clusters');
});
