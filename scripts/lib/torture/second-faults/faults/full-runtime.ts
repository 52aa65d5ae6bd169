/** The runtime directory is full, of bytes or of files, while vbds are attached and detached and a server dies. */
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { comeAndGo } from '../healthy.js';
import type { Stage } from '../stage.js';
import { always, type Fault } from './fault.js';

const CHUNKS_BYTES = [1 << 20, 4096, 1];

function isFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOSPC';
}

async function fillWithBytes(file: string): Promise<void> {
  const handle = await open(file, 'a');
  try {
    for (const bytes of CHUNKS_BYTES) {
      const chunk = Buffer.alloc(bytes);
      for (;;) if ((await handle.write(chunk)).bytesWritten < bytes) break;
    }
  } catch (error) {
    if (!isFull(error)) throw error;
  } finally {
    await handle.close();
  }
}

async function fillWithFiles(directory: string, prefix: number): Promise<void> {
  try {
    for (let i = 0; ; i++) await writeFile(join(directory, `${prefix}-${i}`), '');
  } catch (error) {
    if (!isFull(error)) throw error;
  }
}

/** Fills it, and keeps it full until it is ended. */
async function keepFull(stage: Stage, of: 'bytes' | 'files'): Promise<() => Promise<void>> {
  const directory = join(stage.runtimeDir, 'filler');
  await mkdir(directory, { recursive: true });
  let isOver = false;
  let round = 0;
  const fill = (): Promise<void> =>
    of === 'bytes' ? fillWithBytes(join(directory, 'bytes')) : fillWithFiles(directory, round++);
  await fill();
  const filling = (async () => {
    for (; !isOver; await delay(100)) await fill();
  })();
  return async () => {
    isOver = true;
    await filling;
    await rm(directory, { recursive: true, force: true });
  };
}

export const fullRuntime: Fault = {
  name: 'full',
  about:
    'the runtime directory is full, of bytes or of files, while vbds are attached and detached and a server is killed',
  whyNot: always,
  begin: async (bus, random) => {
    const of = random.pick(['bytes', 'files'] as const);
    const undo = await keepFull(bus.stage, of);
    let restarts = 0;
    return {
      // an attach fails if its files cannot be written; but a detach or a new server needs no new file
      standing: bus.journal.begin('full', of, { commands: { kinds: ['attach', 'start'] } }),
      during: async () => {
        if (random.isOneIn(2)) await comeAndGo(bus, random);
        restarts = await bus.killServer();
        await comeAndGo(bus, random);
        await bus.settled(restarts);
      },
      undo,
    };
  },
};
