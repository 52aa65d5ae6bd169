/** SIGUSR1 to keeper and server: nothing happens. Above all, no debugger listens (by default Node opens one). */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { kill } from '../stage.js';
import { always, type Fault } from './fault.js';

const LISTENING = '0A';
const DEBUGGER_STARTS_MS = 500;

export const idleSignals: Fault = {
  name: 'usr1',
  about: 'SIGUSR1 to a keeper and its server: nothing must happen',
  whyNot: always,
  begin: async (bus) => {
    const { keeperPid, serverPid } = await bus.info();
    const pids = [keeperPid, serverPid].filter((pid) => pid !== null);
    for (const pid of pids) kill(pid, 'SIGUSR1');
    return {
      standing: bus.journal.begin('usr1', `processes ${pids.join(' and ')}`),
      during: async () => {
        await delay(DEBUGGER_STARTS_MS);
        const info = await bus.info();
        if (info.serverPid !== serverPid) bus.journal.error(bus.name, 'SIGUSR1 ended the server');
        for (const pid of pids) {
          const ports = await listeningPorts(pid);
          if (ports.length > 0)
            bus.journal.error(bus.name, `process ${pid} listens on TCP port ${ports} since SIGUSR1`);
        }
      },
      undo: async () => {},
    };
  },
};

/** The TCP ports that a process listens on; none if it has ended. */
export async function listeningPorts(pid: number): Promise<number[]> {
  const tables = ['tcp', 'tcp6'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'utf8').catch(() => ''));
  const names = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const links = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
  const lines = (await Promise.all(tables)).flatMap((text) => text.split('\n'));
  return lines.flatMap((line) => {
    // proc_net_tcp(5): sl local_address rem_address st … the tenth field is the inode
    const fields = line.trim().split(/\s+/);
    if (fields[3] !== LISTENING || !links.includes(`socket:[${fields[9]}]`)) return [];
    return [Number.parseInt(fields[1]?.split(':')[1] ?? '', 16)];
  });
}
