/** A client that is interrupted: its act is undone and does not block anything. */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Bus } from '../bus.js';
import { attachGuest, detachGuest } from '../healthy.js';
import type { Random } from '../random.js';
import { always, type Fault } from './fault.js';

/** commands take a few hundred milliseconds to start */
const LATEST_MS = 1_500;
/** an act that goes on without its client shows after this time */
const ALONE_MS = 500;
const CLEARED_MS = 5_000;

async function interrupt(bus: Bus, random: Random, kind: string, words: string[]): Promise<void> {
  const signal = AbortSignal.timeout(bus.stage.pace.scaled(random.between(100, LATEST_MS)));
  await bus.command(`${kind}, interrupted`, words, { signal });
}

/** `detach --wait` interrupted: the vbd stays, even when its user closes it later. */
async function detaching(bus: Bus, random: Random): Promise<void> {
  const guest = await attachGuest(bus, random);
  if (guest === null) return;
  const { path, vdev } = guest;
  await bus.writer.ask({ act: 'hold', path });
  await interrupt(bus, random, 'detach', ['detach', '--wait', '600', vdev]);
  await bus.writer.ask({ act: 'release', path });
  await delay(bus.stage.pace.scaled(ALONE_MS));
  const { vbds } = await bus.info();
  if (vbds.some((vbd) => vbd.vdev === vdev)) return detachGuest(bus, guest, bus.healthyLimitMs);
  bus.journal.error(bus.name, `${vdev} was detached after its detach had been given up`);
}

/** `detach --force` while another detach waits: the forced one succeeds. */
async function forcing(bus: Bus, random: Random): Promise<void> {
  const guest = await attachGuest(bus, random);
  if (guest === null) return;
  const { path, vdev } = guest;
  await bus.writer.ask({ act: 'hold', path });
  const waiting = bus.command('detach, overtaken', ['detach', '--wait', '30', vdev]);
  await delay(random.between(0, LATEST_MS));
  await bus.demand('detach --force', ['detach', '--force', vdev], { limitMs: bus.healthyLimitMs });
  await waiting;
  await bus.writer.ask({ act: 'release', path });
  const { vbds } = await bus.info();
  if (vbds.some((vbd) => vbd.vdev === vdev)) await detachGuest(bus, guest, bus.healthyLimitMs);
}

/** `save` interrupted: no vbd stays paused, and no part of a copy is left. */
async function saving(bus: Bus, random: Random): Promise<void> {
  const { vdev, path } = random.pick(bus.disks.filter(({ passthrough }) => passthrough === 'off'));
  const copy = join(bus.stage.directory, 'images', `given-up-${bus.name}.img`);
  await interrupt(bus, random, 'save', ['save', '--force', vdev, copy]);
  await bus.writer.progress([path], bus.healthyLimitMs);
  await bus.demand('save', ['save', '--force', vdev, copy], { limitMs: bus.healthyLimitMs });
  const deadline = Date.now() + bus.stage.pace.scaled(CLEARED_MS);
  for (;;) {
    const parts = (await readdir(dirname(copy))).filter(
      (name) => name !== basename(copy) && name.includes(basename(copy)),
    );
    if (parts.length === 0) return;
    if (Date.now() > deadline) return bus.journal.error(bus.name, `save left ${parts.join(', ')}`);
    await delay(100);
  }
}

/** `reset` interrupted: the vbd can be detached. */
async function resetting(bus: Bus, random: Random): Promise<void> {
  const guest = await attachGuest(bus, random);
  if (guest === null) return;
  if (guest.driver === 'ram') await interrupt(bus, random, 'reset', ['reset', guest.vdev]);
  await detachGuest(bus, guest, bus.healthyLimitMs);
}

export const interruptedAct: Fault = {
  name: 'interrupt',
  about: 'clients of detach --wait, save and reset are interrupted: their acts are undone',
  whyNot: always,
  begin: async (bus, random) => {
    const act = random.pick([detaching, forcing, saving, resetting]);
    return {
      standing: bus.journal.begin('interrupt', `${act.name} on ${bus.name}`),
      during: () => act(bus, random),
      undo: async () => {},
    };
  },
};
