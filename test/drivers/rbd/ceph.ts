/**
 * A real Ceph cluster for tests, on this machine: one monitor, one OSD, and the pool `rbd`. It needs no rights. Its monitor
 * and OSD are children of the test, and are killed at its end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort, isInstalled, output } from '../../e2e/command.js';
import { standStill } from '../../e2e/stand-still.js';

const START_LIMIT_MS = 120_000;
const PROGRAMS = ['ceph', 'rbd', 'ceph-mon', 'ceph-osd', 'ceph-authtool', 'monmaptool'];

/** Why tests with a cluster cannot run; false if they can. */
export function whyNoCeph(...others: string[]): string | false {
  const missing = [...PROGRAMS, ...others].filter((program) => !isInstalled(program));
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

export interface CephWish {
  /** where its bytes are. What is in memory is gone when the OSD ends; default: memory */
  readonly store?: 'memstore' | 'bluestore';
  /** clients need keys */
  readonly hasKeys?: boolean;
  readonly gib?: number;
  /**
   * `hostile`: with a cache that loses acknowledged writes, and a time limit after which a write may still be done: a vbd must
   * not believe it. `plain`: without a cache. Default: hostile
   */
  readonly settings?: 'hostile' | 'plain';
}

const CLIENT_SETTINGS = {
  hostile: [
    'rbd cache = true',
    'rbd cache policy = writeback',
    'rbd cache writethrough until flush = false',
    'rados osd op timeout = 3',
  ],
  plain: ['rbd cache = false'],
} as const;

/**
 * Placement groups of an OSD that stood still longer than their lease (16 s) may wait for ever after. Leases that outlive a
 * test prevent that. They would delay an OSD that is started again, which one with its bytes in memory never is.
 */
const FOR_PAUSES = 'osd pool default read lease ratio = 1000';

type Daemon = 'mon' | 'osd';

const NAMES: Readonly<Record<Daemon, string>> = { mon: 'a', osd: '0' };
const STORY_LINES = 40;

export class Ceph {
  readonly #directory: string;
  readonly #wish: Required<CephWish>;
  readonly #children = new Map<Daemon, ChildProcess>();

  private constructor(directory: string, wish: Required<CephWish>) {
    this.#directory = directory;
    this.#wish = wish;
  }

  /** @param directory does not exist yet */
  static async start(directory: string, wish: CephWish = {}): Promise<Ceph> {
    const cluster = new Ceph(directory, { store: 'memstore', hasKeys: false, gib: 4, settings: 'hostile', ...wish });
    try {
      await cluster.#begin();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  get conf(): string {
    return this.#path('ceph.conf');
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  ceph(...words: string[]): Promise<string> {
    return this.#run('ceph', words);
  }

  rbd(...words: string[]): Promise<string> {
    // it waits until a new pool can be used
    return this.#run('rbd', ['--rados_osd_op_timeout=0', ...words]);
  }

  /** An image with all that a vbd can use. @param words more of `rbd create` */
  async create(name: string, bytes: number, ...words: string[]): Promise<void> {
    const features = ['--image-feature', 'layering,exclusive-lock,object-map,fast-diff'];
    await this.rbd('create', name, '--size', `${bytes}B`, ...features, ...words);
  }

  /** A user with as few rights as a vbd needs, and the path of its key. */
  async user(name: string, profile = 'rbd'): Promise<string> {
    const path = this.#path(`${name}.keyring`);
    const rights = [
      'mon',
      `profile ${profile === 'rbd' ? 'rbd' : 'rbd-read-only'}`,
      'osd',
      `profile ${profile} pool=rbd`,
    ];
    await this.ceph('auth', 'get-or-create', `client.${name}`, ...rights, '-o', path);
    return path;
  }

  /** Changes what a user may ask of monitors; its next client notices. */
  async allow(name: string, monitors: string): Promise<void> {
    await this.ceph('auth', 'caps', `client.${name}`, 'mon', monitors, 'osd', 'profile rbd pool=rbd');
  }

  /** Takes the exclusive lock of an image away, as an operator or another client may: its owner is blocklisted. */
  async breakLock(image: string): Promise<void> {
    const locks = JSON.parse(await this.rbd('lock', 'ls', image, '--format', 'json')) as {
      id: string;
      locker: string;
    }[];
    for (const { id, locker } of locks) await this.rbd('lock', 'rm', image, id, locker);
  }

  /** Lets a daemon stand still. */
  async pause(daemon: Daemon): Promise<void> {
    await standStill(this.#children.get(daemon)?.pid);
  }

  resume(daemon: Daemon): void {
    this.#children.get(daemon)?.kill('SIGCONT');
  }

  /** Kills a daemon, and waits for its end. */
  async kill(daemon: Daemon): Promise<void> {
    const child = this.#children.get(daemon);
    this.#children.delete(daemon);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  startDaemon(daemon: Daemon): void {
    const words = ['-c', this.conf, '-i', NAMES[daemon], '-f'];
    this.#children.set(daemon, spawn(`ceph-${daemon}`, words, { stdio: 'ignore' }));
  }

  async stop(): Promise<void> {
    await this.kill('osd');
    await this.kill('mon');
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** How the daemons are, and the ends of their logs: for a test that a cluster lets wait. */
  async #story(): Promise<string> {
    const parts = [...this.#children].map(async ([daemon, { exitCode, signalCode }]) => {
      const state = exitCode === null && signalCode === null ? 'runs' : `ended with ${exitCode ?? signalCode}`;
      const log = await readFile(this.#path(`${daemon}.${NAMES[daemon]}.log`), 'utf8').catch(() => 'no log');
      return `ceph-${daemon} ${state}; its log ends with:\n${log.split('\n').slice(-STORY_LINES).join('\n')}`;
    });
    return (await Promise.all(parts)).join('\n');
  }

  async #run(program: string, words: readonly string[]): Promise<string> {
    try {
      return await output(program, ['-c', this.conf, ...words], { timeoutMs: START_LIMIT_MS });
    } catch (error) {
      throw new Error(`${String(error)}\n${await this.#story()}`);
    }
  }

  async #begin(): Promise<void> {
    const port = await freePort();
    const fsid = randomUUID();
    for (const name of ['mon', 'osd', 'run']) await mkdir(this.#path(name), { recursive: true });
    await writeFile(this.conf, this.#settings(fsid, port));
    await this.#makeKeys();
    const map = this.#path('monmap');
    await output('monmaptool', ['--create', '--fsid', fsid, '--addv', 'a', `[v2:127.0.0.1:${port}/0]`, map]);
    const keyring = ['--keyring', this.#path('keyring')];
    await this.#run('ceph-mon', ['-i', 'a', '--mkfs', '--monmap', map, ...keyring]);
    this.startDaemon('mon');
    // monitor and OSD must agree on it, else the OSD never comes up
    const osd = randomUUID();
    await this.ceph('osd', 'new', osd, '0');
    await this.#run('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', osd, '--no-mon-config']);
    if (this.#wish.hasKeys) {
      const rights = ['mon', 'allow profile osd', 'osd', 'allow *'];
      await this.ceph('auth', 'get-or-create', 'osd.0', ...rights, '-o', this.#path('osd/keyring'));
    }
    this.startDaemon('osd');
    await this.ceph('osd', 'pool', 'create', 'rbd', '8');
    await this.ceph('osd', 'pool', 'application', 'enable', 'rbd', 'rbd');
    // returns when the pool can be used
    await this.rbd('create', '--size', '1M', 'ready');
  }

  async #makeKeys(): Promise<void> {
    const path = this.#path('keyring');
    if (!this.#wish.hasKeys) return await writeFile(path, '');
    await output('ceph-authtool', ['--create-keyring', path, '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *']);
    const rights = ['mon', 'osd', 'mgr'].flatMap((where) => ['--cap', where, 'allow *']);
    await output('ceph-authtool', [path, '--gen-key', '-n', 'client.admin', ...rights]);
  }

  #settings(fsid: string, port: number): string {
    const { store, hasKeys, gib, settings } = this.#wish;
    const auth = hasKeys ? 'cephx' : 'none';
    const directory = this.#directory;
    // without the first two settings of the monitor each step takes a second
    return `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${port}/0]
public addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = ${auth}
auth service required = ${auth}
auth client required = ${auth}
keyring = ${directory}/keyring
run dir = ${directory}/run
admin socket = ${directory}/run/$name.$pid.asok
log file = ${directory}/$name.log
pid file = ${directory}/run/$name.pid
crash dir =
[client]
${CLIENT_SETTINGS[settings].join('\n')}
[mon]
paxos propose interval = 0.02
paxos min wait = 0.01
mon data = ${directory}/mon
mon cluster log file = ${directory}/cluster.log
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 1
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon osd min down reporters = 1
[osd]
osd data = ${directory}/osd
keyring = ${directory}/osd/keyring
osd objectstore = ${store}
osd class load list = *
osd class default list = *
osd op num shards = 2
osd memory target = 939524096
memstore device bytes = ${gib * 2 ** 30}
memstore page set = true
${store === 'memstore' ? FOR_PAUSES : ''}
bluestore block create = true
bluestore block size = ${gib * 2 ** 30}
bluestore block wal create = false
bluestore block db create = false
`;
  }
}
