/**
 * What it costs the clients of a bus that somebody watches it. A bus has many vbds, each with some requests counted. fio
 * reads one of them; meanwhile nobody looks, or `fusetap top` does once a second, or a scraper of Prometheus every five
 * seconds, which is often. The speed of a machine changes with time: so a round has all of them, each in the other's
 * neighbourhood, forwards and in the next round backwards, and the medians of the ratios of each round are told.
 *
 *     scripts/watch-cost [VBDS] [ROUNDS] [SECONDS]      default: 500 vbds, 9 rounds of 10 s each
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { attachAll, readSome } from './vbds.js';

const CLI = new URL('../../../cli/main.cjs', import.meta.url).pathname;
const SIZE = 4 << 20;

const [vbds = 500, rounds = 9, seconds = 10] = process.argv.slice(2).map(Number);

const directory = mkdtempSync(join(tmpdir(), 'watch-cost-'));
const env = { ...process.env, FUSETAP_RUNTIME_DIR: join(directory, 'runtime') };
const execute = promisify(execFile);

/** Whoever watches meanwhile. */
const WATCHERS: Readonly<Record<string, () => ChildProcess[]>> = {
  nobody: () => [],
  // script(1) is its terminal
  top: () => [
    spawn('script', ['-qefc', `'${process.execPath}' '${CLI}' top`, '/dev/null'], {
      env,
      stdio: ['pipe', 'ignore', 'ignore'],
    }),
  ],
  scraper: () => {
    const socket = join(env.FUSETAP_RUNTIME_DIR, 'state/0/control.sock');
    const ask = `while sleep 5; do curl -s --unix-socket '${socket}' http://x/metrics -o /dev/null; done`;
    return [spawn('sh', ['-c', ask], { stdio: 'ignore', detached: true })];
  },
};

/** Requests per second of random reads of 4 KiB, eight at a time. */
async function measure(path: string): Promise<number> {
  const job = [
    '--name=x',
    `--filename=${path}`,
    '--rw=randread',
    '--bs=4k',
    '--iodepth=8',
    '--ioengine=libaio',
    '--direct=1',
  ];
  const limits = [
    '--time_based',
    `--runtime=${seconds}`,
    `--size=${SIZE}`,
    '--allow_file_create=0',
    '--output-format=json',
  ];
  const { stdout } = await execute('fio', [...job, ...limits]);
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { read: { iops: number } }[] };
  return jobs[0]?.read.iops ?? 0;
}

async function round(path: string, watch: () => ChildProcess[]): Promise<number> {
  const watchers = watch();
  // let it load; nobody needs that, but the machine shall have the same rest
  await delay(4_000);
  try {
    return await measure(path);
  } finally {
    for (const { pid, spawnargs } of watchers)
      if (pid !== undefined) process.kill(spawnargs[0] === 'sh' ? -pid : pid, 'SIGTERM');
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

try {
  const images = Array.from({ length: vbds }, (_, i) => {
    const image = join(directory, `${i}.img`);
    writeFileSync(image, '');
    truncateSync(image, SIZE);
    return image;
  });
  execFileSync(process.execPath, [CLI, 'start'], { env });
  const paths = await attachAll(env.FUSETAP_RUNTIME_DIR, images);
  await readSome(paths);
  const [path = ''] = paths;
  const found: Record<string, number[]> = { nobody: [], top: [], scraper: [] };
  for (let i = 0; i < rounds; i++) {
    const order = Object.entries(WATCHERS);
    for (const [name, watch] of i % 2 === 0 ? order : order.reverse()) found[name]?.push(await round(path, watch));
  }
  process.stdout.write(`${vbds} vbds, ${rounds} rounds of ${seconds} s, random reads of 4 KiB\n`);
  for (const [name, values] of Object.entries(found)) {
    const sorted = [...values].sort((a, b) => a - b);
    const ratio = median(values.map((value, i) => value / (found.nobody?.[i] ?? value)));
    const range = `${Math.round(sorted[0] ?? 0)} to ${Math.round(sorted.at(-1) ?? 0)}`;
    const change = ((ratio - 1) * 100).toFixed(1);
    process.stdout.write(`${name.padEnd(8)} ${Math.round(median(values))}/s  ${change} %   (${range})\n`);
  }
} finally {
  execFileSync(process.execPath, [CLI, 'stop', '--force', '--quiet'], { env, stdio: 'ignore' });
  rmSync(directory, { recursive: true, force: true });
}
