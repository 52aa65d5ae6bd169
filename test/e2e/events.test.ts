/** Events of buses as they happen: GET /events of one, and `fusetap log --all -f` of all that there are and come. */
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { collect, eventually, type Outcome } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill, killServer } from './kill-server.js';

t.setTimeout(300_000);

const SIZE = 1 << 20;

interface Event {
  readonly bus?: string;
  readonly time: string | null;
  readonly event: string;
  readonly vdev?: string;
}

/** A program that prints a document a line, and what it has printed. */
class Follower {
  readonly events: Event[] = [];
  readonly ended: Promise<Outcome>;
  readonly #program: ReturnType<Bench['startProgram']>;

  constructor(program: ReturnType<Bench['startProgram']>) {
    this.#program = program;
    let text = '';
    program.stdout?.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop() ?? '';
      this.events.push(...lines.map((line) => JSON.parse(line) as Event));
    });
    this.ended = collect(program);
  }

  async see(wanted: Partial<Event>): Promise<Event> {
    const entries = Object.entries(wanted);
    return await eventually(JSON.stringify(wanted), 60_000, () =>
      this.events.find((event) => entries.every(([key, value]) => event[key as keyof Event] === value)),
    );
  }

  async interrupt(): Promise<Outcome> {
    this.#program.kill('SIGINT');
    return await this.ended;
  }
}

function followSocket(bench: Bench, socket = 'control.sock'): Follower {
  const path = join(bench.runtimeDir, 'state/0', socket);
  const words = ['-sSN', '--unix-socket', path, 'http://fusetap/events'];
  return new Follower(bench.startProgram('curl', words, { timeoutMs: 200_000 }));
}

onDefaultTransport(t, ['curl'], async (t, transport) => {
  await t.test('GET /events, until the bus ends', async (t) => followOne(t, await openBench(t, transport)));
  await t.test('GET /events of a server whose keeper died', async (t) =>
    followOrphan(t, await openBench(t, transport)),
  );
  await t.test('log --all -f', async (t) => followAll(t, await openBench(t, transport)));
  await t.test('logs of buses that have ended are kept, but not for ever', async (t) =>
    keep(t, await openBench(t, transport)),
  );
});

/** Attaches and detaches until the follower has seen it: from then on it sees all. */
async function awaitConnected(bench: Bench, follower: Follower, image: string): Promise<void> {
  await eventually('the first event', 60_000, async () => {
    await bench.attach(image, 'xvdz');
    await bench.detach('xvdz');
    return follower.events.length > 0;
  });
}

async function followOne(t: Test, bench: Bench): Promise<void> {
  const [a, b] = [await bench.image('a.img', SIZE), await bench.image('b.img', SIZE)];
  await bench.begin();
  const [follower, leaver] = [followSocket(bench), followSocket(bench)];
  await awaitConnected(bench, follower, b);
  await bench.attach(a);
  t.match(await follower.see({ event: 'attached', vdev: 'xvda' }), { time: /^\d{4}-.*Z$/, driver: 'aio', image: a });
  await leaver.interrupt();
  await killServer(bench);
  await follower.see({ event: 'server-died' });
  await follower.see({ event: 'server-replaced' });
  await bench.succeed(['stop']);
  t.match(await follower.ended, { status: 0, stderr: '' }, 'the answer is complete');
  t.match(follower.events.at(-1), { event: 'ended', durable: true });
  const times = follower.events.map(({ time }) => time ?? '');
  t.same(times, [...times].sort());
  t.notOk(
    follower.events.some(({ event }) => event === 'started'),
    'not what was before',
  );
}

async function followOrphan(t: Test, bench: Bench): Promise<void> {
  await bench.attach(await bench.image('a.img', SIZE));
  const { keeperPid } = await busInfo(bench);
  kill(keeperPid ?? 0);
  await eventually('the orphan', 60_000, async () => (await busInfo(bench).catch(() => null))?.state === 'orphaned');
  const follower = followSocket(bench, 'server.sock');
  const metrics = await bench.succeed(['metrics']);
  t.match(metrics, /^fusetap_bus_state\{bus="0",state="orphaned"\} 1$/m);
  t.notMatch(metrics, /^fusetap_bus_restarts_total\{/m, 'nobody knows');
  await eventually('a pause that it sees', 60_000, async () => {
    await bench.succeed(['pause', 'xvda']);
    await bench.succeed(['resume', 'xvda']);
    return (await bench.fusetap(['top', '--interval', '0.1'])).stdout.includes('orphaned');
  });
  await bench.succeed(['stop']);
  t.match(await follower.ended, { status: 0, stderr: '' });
  t.match(follower.events.at(-1), { event: 'ended' });
}

async function followAll(t: Test, bench: Bench): Promise<void> {
  const [a, b] = [await bench.image('a.img', SIZE), await bench.image('b.img', SIZE)];
  await bench.begin('--bus', 'gone');
  await bench.succeed(['stop', '--bus', 'gone']);
  await bench.attach('--bus', 'here', a);
  const follower = new Follower(bench.startFusetap(['log', '--all', '-f', '--json'], { timeoutMs: 250_000 }));
  await follower.see({ bus: 'gone', event: 'ended' });
  await follower.see({ bus: 'here', event: 'attached', vdev: 'xvda' });
  await bench.attach('--bus', 'later', b);
  await follower.see({ bus: 'later', event: 'started' });
  await bench.succeed(['stop', '--bus', 'here']);
  await follower.see({ bus: 'here', event: 'ended' });
  // the same name again, and one that is over at once
  await bench.attach('--bus', 'here', 'ram:a.img');
  await bench.succeed(['run', 'ram:a.img', '--', 'true']);
  const [run] = (await readdir(join(bench.runtimeDir, 'ended'))).filter((name) => name.startsWith('run-'));
  await follower.see({ bus: run ?? '?', event: 'ended' });
  await bench.succeed(['stop', '--all']);
  await follower.see({ bus: 'later', event: 'ended' });
  await eventually('the second end', 60_000, () => {
    return follower.events.filter(({ bus, event }) => bus === 'here' && event === 'ended').length === 2;
  });
  await follower.interrupt();
  const seen = follower.events.map((event) => JSON.stringify(event));
  t.equal(new Set(seen).size, seen.length, 'no line comes twice');
  const started = follower.events.filter(({ event }) => event === 'started').map(({ bus }) => bus);
  t.same(started.sort(), ['gone', 'here', 'here', 'later', run].sort());
  const all = await bench.succeed(['log', '--all']);
  t.match(all, /^gone: \d.* started /m);
  const times = [...all.matchAll(/^[\w.-]+: (\S+Z) /gm)].map(([, time]) => time);
  t.same(times, [...times].sort(), 'in the order of their times');
  t.match(await bench.fusetap(['log', '--all', '--bus', 'here']), { status: 2 });
}

async function keep(t: Test, bench: Bench): Promise<void> {
  await bench.begin();
  const ended = join(bench.runtimeDir, 'ended');
  for (let i = 0; i < 25; i++) {
    await mkdir(join(ended, `bus${i}`), { recursive: true });
    await writeFile(join(ended, `bus${i}`, 'log'), '');
    await utimes(join(ended, `bus${i}`), i, i);
  }
  await bench.succeed(['stop']);
  const kept = await readdir(ended);
  t.equal(kept.length, 20);
  t.notOk(kept.includes('bus5'), 'the oldest go first');
  t.ok(kept.includes('bus6'));
  t.match(await bench.fusetap(['log']), { status: 0, stdout: / ended / });
}
