/**
 * tap-ctl: tapdisk's words, its output on a terminal and in a pipe, its exit status. The tables here are what scripts
 * that were written for it hold us to.
 */
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { TAP_COMMANDS } from '../../cli/tap-ctl/commands.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { type Bench, JUST_USER, onDefaultTransport, openBench, storiesFor } from './fixtures.js';
import { busInfo, replaceServer } from './kill-server.js';
import { PROGRAM, print, tap } from './tap-ctl.js';

t.setTimeout(240_000);

const { errno } = constants;

/** What it prints on a terminal. */
async function printOnTerminal(bench: Bench, line: string): Promise<string> {
  const command = `'${process.execPath}' '${PROGRAM}' ${line}`;
  const printed = await bench.sh('script --quiet --return --command "$1" /dev/null </dev/null', command);
  return printed.replaceAll('\r', '').trimEnd();
}

interface Refusal {
  /** an errno, which is the exit status too */
  readonly status: number;
  readonly says: RegExp;
}

/** Demands that it fails so: one line on stderr, nothing on stdout. */
async function fail(t: Test, bench: Bench, line: string, { status, says }: Refusal): Promise<void> {
  const outcome = await tap(bench, line);
  t.equal(outcome.status, status, `tap-ctl ${line}: ${outcome.stderr}`);
  t.match(outcome.stderr, says);
  t.match(outcome.stderr, /^tap-ctl: [^\n]+\n$/, 'one line');
  t.equal(outcome.stdout, '');
}

/** The same of what is wrong whoever asks, so that one who asks is enough. */
async function refuse(t: Test, bench: Bench, line: string, refusal: Refusal): Promise<void> {
  if (bench.transport.runner === undefined) await fail(t, bench, line, refusal);
}

type Story = (t: Test, bench: Bench) => Promise<void>;

const STORIES: Record<string, Story> = {
  'a life in steps': liveInSteps,
  'a tapdisk that is killed': loseTapdisk,
  "a script written for tapdisk's tap-ctl": runScript,
};
/** what does not depend on who runs the tapdisks */
const AS_ROOT: Record<string, Story> = {
  'help and wrong words': refuseWords,
  'another image under an open client': swapImages,
  'create and destroy': createAndDestroy,
};

onDefaultTransport(
  t,
  ['script', 'perl'],
  async (t, transport) => {
    const bench = await openBench(t, transport);
    const stories = storiesFor(transport, STORIES, AS_ROOT);
    for (const [name, story] of Object.entries(stories)) await t.test(name, (t) => story(t, bench));
    t.same(await bench.traces(), [], 'nothing is left');
  },
  JUST_USER,
);

async function refuseWords(t: Test, bench: Bench): Promise<void> {
  const help = await print(bench, 'help');
  for (const name of Object.keys(TAP_COMMANDS)) {
    t.match(help, new RegExp(`\\b${name}\\b`));
    const file = await TAP_COMMANDS[name]?.();
    if (file === undefined) throw new Error(name);
    const { command } = file;
    t.match(command.usage, new RegExp(`^${name}\\b`));
    for (const letter of Object.keys(command.letters)) {
      if (!'e2sCbc'.includes(letter))
        t.match(command.usage, new RegExp(`-${letter}\\b`), `${name} tells of -${letter}`);
    }
  }
  t.equal(await print(bench, 'free -h'), 'usage: free <-m minor>');
  t.equal(await print(bench, 'check'), 'ok');
  t.equal(await print(bench, 'list'), '', 'there is nothing yet');
  const wrong = [
    'bogus',
    'free',
    'free -m x',
    'attach -p 1',
    'list -x',
    'list word',
    'list --letter-p 3',
    'create',
    'pause -p 1 -m',
  ];
  const more = ['create -a disk.img', 'create -a aio:', 'create -a aio:a.img -t soon'];
  await Promise.all([...wrong, ...more].map((line) => fail(t, bench, line, { status: errno.EINVAL, says: /./ })));
  await fail(t, bench, 'free -m -1', { status: errno.EINVAL, says: /-m '-1' is not a number/ });
  await fail(t, bench, 'list -p', { status: errno.EINVAL, says: /option '-p <value>' argument missing: usage: list / });
  await fail(t, bench, 'create -a aio:a.img -C log', { status: errno.EOPNOTSUPP, says: /-C/ });
  await fail(t, bench, 'major', { status: errno.ENODEV, says: /a vbd is a file/ });
}

interface Tapdisk {
  readonly image: string;
  /** the path that `allocate` gave */
  readonly device: string;
  readonly pid: string;
  /** its process and minor, as tap-ctl is told of them */
  readonly both: string;
}

async function liveInSteps(t: Test, bench: Bench): Promise<void> {
  const tapdisk = await spawn(t, bench);
  await attach(t, bench, tapdisk);
  await open(t, bench, tapdisk);
  await pause(t, bench, tapdisk);
  await readStats(t, bench, tapdisk);
  await closeAndFree(t, bench, tapdisk);
}

/** One minor, and a tapdisk that serves nothing yet. */
async function spawn(t: Test, bench: Bench): Promise<Tapdisk> {
  const image = await bench.image('steps.img', 1 << 20, 1 << 20);
  const device = await print(bench, 'allocate');
  t.equal(device, `${bench.runtimeDir}/tap/tapdev0`);
  t.equal(await print(bench, 'allocate'), `${bench.runtimeDir}/tap/tapdev1`, 'each has a minor of its own');
  t.equal((await bench.try('echo lost >"$1"', device)).status, 2, 'nothing can be written to one that is not open');
  await print(bench, 'free -m 1');
  const spawned = await printOnTerminal(bench, 'spawn');
  t.match(spawned, /^tapdisk spawned with pid \d+$/, 'spawn on a terminal');
  const pid = spawned.split(' ').at(-1) as string;
  const both = `-p ${pid} -m 0`;
  t.equal(await print(bench, 'list'), `minor=0\npid=${pid}`, 'one that is not attached, one that has nothing');
  return { image, device, pid, both };
}

async function attach(t: Test, bench: Bench, { image, pid, both }: Tapdisk): Promise<void> {
  await refuse(t, bench, 'attach -p 1 -m 0', { status: errno.ENOENT, says: /no tapdisk with pid 1/ });
  await refuse(t, bench, `attach -p ${pid} -m 7`, { status: errno.ENOENT, says: /minor 7 is not allocated/ });
  await refuse(t, bench, `open ${both} -a aio:${image}`, { status: errno.ENODEV, says: /is not attached/ });
  await print(bench, `attach ${both}`);
  await refuse(t, bench, `attach ${both}`, { status: errno.EEXIST, says: /attached already/ });
  await refuse(t, bench, 'free -m 0', { status: errno.EBUSY, says: /is attached/ });
  await refuse(t, bench, `pause ${both}`, { status: errno.ENODEV, says: /no image is open/ });
  await refuse(t, bench, `close ${both}`, { status: errno.ENODEV, says: /no image is open/ });
  t.equal(await print(bench, 'list'), `pid=${pid} minor=0 state=0x2`, 'closed');
}

async function open(t: Test, bench: Bench, { image, device, pid, both }: Tapdisk): Promise<void> {
  await refuse(t, bench, `open ${both} -a aio:/nowhere`, { status: errno.ENOENT, says: /no such image/ });
  await refuse(t, bench, `open ${both} -a qed:${image}`, { status: errno.ENOENT, says: /no such driver/ });
  await print(bench, `open ${both} -a aio:${image}`);
  await refuse(t, bench, `open ${both} -a aio:${image}`, { status: errno.EALREADY, says: /is open already/ });
  await refuse(t, bench, `detach ${both}`, { status: errno.EBUSY, says: /is open/ });
  t.equal(await print(bench, 'list'), `pid=${pid} minor=0 state=0 args=aio:${image}`, 'running');
  await bench.sh('cmp "$1" "$2"; printf written | dd of="$1" conv=notrunc status=none', device, image);
  t.equal(await bench.sh('head -c 7 "$1"', image), 'written', 'the link is the disk');
}

async function pause(t: Test, bench: Bench, { image, device, pid, both }: Tapdisk): Promise<void> {
  const held = await Client.open(t, bench, 'read', device);
  await fail(t, bench, `close ${both}`, { status: errno.EBUSY, says: new RegExp(`pid ${held.pid} `) });
  await print(bench, `pause ${both} -t 5`);
  const read = held.call('read', 0, 7);
  t.equal(await print(bench, 'list'), `pid=${pid} minor=0 state=0x2a args=aio:${image}`, 'paused');
  const padded = `${pid.padStart(8)}    0 0x2a        aio ${image}`;
  t.equal(await printOnTerminal(bench, 'list'), padded, 'on a terminal');
  await print(bench, `unpause ${both}`);
  t.equal(await read, '7', 'what came meanwhile has waited');
  await refuse(t, bench, `unpause ${both}`, { status: errno.EINVAL, says: /is not paused/ });
  await held.release();
}

async function readStats(t: Test, bench: Bench, { image, both }: Tapdisk): Promise<void> {
  const stats = JSON.parse(await print(bench, `stats ${both}`));
  t.ok(stats.secs[0] >= 2048 && stats.secs[1] >= 1, `sectors: ${stats.secs}`);
  const [reads, writes] = stats.secs;
  const status = '"status": { "reqs": { "max": 352, "pending": 0 } }';
  const images = `[ { "name": "${image}", "hits": [ ${reads}, ${writes} ], "fail": [ 0, 0 ], "driver": { "type": 0, "name": "aio", ${status} } } ]`;
  const tail =
    '"FIXME_enospc_redirect_count": 0, "nbd_mirror_failed": 0, "reqs_outstanding": 0, "read_caching": "false"';
  const line = `{ "name": "aio:${image}", "secs": [ ${reads}, ${writes} ], "images": ${images}, ${tail} }`;
  t.equal(await print(bench, `stats ${both}`), line, 'stats, to the byte');
}

async function closeAndFree(t: Test, bench: Bench, { pid, both }: Tapdisk): Promise<void> {
  await print(bench, `close ${both}`);
  t.equal(await printOnTerminal(bench, 'list'), `${pid.padStart(8)}    0  0x2          - -`, 'closed, on a terminal');
  await print(bench, `detach ${both}`);
  t.equal(await print(bench, 'list'), 'minor=0', 'the tapdisk has ended with its last vbd');
  await refuse(t, bench, `detach ${both}`, { status: errno.ENOENT, says: /no tapdisk/ });
  await print(bench, 'free -m 0');
  await refuse(t, bench, 'free -m 0', { status: errno.ENOENT, says: /is not allocated/ });
  t.equal(await print(bench, 'list'), '');
}

/** Two images, a tapdisk that serves the first, and a client that has it open. */
interface Swap extends Omit<Tapdisk, 'image'> {
  readonly first: string;
  readonly second: string;
  readonly client: Client;
}

async function swapImages(t: Test, bench: Bench): Promise<void> {
  const [first, second] = [await bench.image('first.img', 1 << 20), await bench.image('second.img', 1 << 20)];
  await bench.sh('printf one | dd of="$1" conv=notrunc status=none', first);
  await bench.sh('printf two | dd of="$1" conv=notrunc status=none', second);
  const device = await print(bench, `create -a aio:${first}`);
  const pid = /^pid=(\d+)/.exec(await print(bench, 'list'))?.[1] ?? '';
  const both = `-p ${pid} -m 0`;
  const client = await Client.open(t, bench, 'write', device);
  t.equal(await client.call('write', 100, 10, 'a'), '10');
  const swap: Swap = { first, second, device, pid, both, client };
  await fail(t, bench, `unpause ${both} -a aio:${second}`, { status: errno.EINVAL, says: /is not paused/ });
  await swapWhilePaused(t, bench, swap);
  await outliveServers(t, bench, swap);
  await swapDrivers(t, bench, swap);
  await client.release();
  await print(bench, `destroy ${both}`);
  t.same(await bench.traces(), []);
}

async function swapWhilePaused(t: Test, bench: Bench, swap: Swap): Promise<void> {
  const { first, second, device, pid, both, client } = swap;
  await print(bench, `pause ${both}`);
  const waiting = client.call('write', 200, 10, 'b');
  await refuseOthers(t, bench, swap);
  await print(bench, `unpause ${both} -a aio:${second}`);
  t.equal(await waiting, '10');
  t.equal(await print(bench, 'list'), `pid=${pid} minor=0 state=0 args=aio:${second}`);
  t.equal(await text(bench, first), `one${'a'.repeat(10)}`, 'acknowledged before');
  t.equal(await text(bench, second), `two${'b'.repeat(10)}`, 'waited');
  t.equal(await bench.sh('head -c 3 "$1"', device), 'two');
  // the first image is nobody's now, the second is ours
  await bench.succeed(['attach', '--bus', 'other', first, 'xvda', 'w']);
  await bench.detach('--bus', 'other', 'xvda');
  t.equal((await bench.fusetap(['attach', '--bus', 'other', second])).status, 4, 'rule 8');
}

/** Images that it cannot have instead. */
async function refuseOthers(t: Test, bench: Bench, { first, second, both }: Swap): Promise<void> {
  const larger = await bench.image('larger.img', 2 << 20);
  const sizes = /1048576 bytes, the other image has 2097152/;
  await fail(t, bench, `unpause ${both} -a aio:${larger}`, { status: errno.EINVAL, says: sizes });
  await fail(t, bench, `unpause ${both} -a aio:/nowhere`, { status: errno.ENOENT, says: /no such image/ });
  await bench.succeed(['attach', '--bus', 'other', second, 'xvda', 'w']);
  await fail(t, bench, `unpause ${both} -a aio:${second}`, { status: errno.EBUSY, says: /on bus other|bus other/ });
  await bench.detach('--bus', 'other', 'xvda');
  const paused = `state=0x2a args=aio:${first}`;
  t.match(await print(bench, 'list'), paused, 'all or nothing: it is paused, on the first image');
}

async function outliveServers(t: Test, bench: Bench, { second, client }: Swap): Promise<void> {
  await replaceServer(bench, { bus: 'tap0', limitMs: 10_000 });
  t.equal((await busInfo(bench, 'tap0')).restarts, 1);
  t.equal(await client.call('write', 300, 10, 'c'), '10', 'the next server has it too');
  await bench.succeed(['upgrade', '--bus', 'tap0']);
  t.equal(await client.call('write', 400, 10, 'd'), '10', 'and the one after an upgrade');
  t.equal(await text(bench, second), `two${'b'.repeat(10)}${'c'.repeat(10)}${'d'.repeat(10)}`);
}

async function swapDrivers(t: Test, bench: Bench, { first, second, both, client }: Swap): Promise<void> {
  await print(bench, `pause ${both}`);
  await print(bench, `unpause ${both} -a sync:${second}`);
  t.match(await print(bench, 'list'), `args=sync:${second}`, 'the same image by another driver');
  await print(bench, `pause ${both}`);
  await print(bench, `unpause ${both} -a ram:${first}`);
  t.equal(await client.call('write', 500, 10, 'e'), '10');
  t.equal(await text(bench, first), `one${'a'.repeat(10)}`, 'to memory, not to the image');
}

/** What was written to the beginning of an image that was all zeros. */
function text(bench: Bench, image: string): Promise<string> {
  return bench.sh('head -c 1000 "$1" | tr -d "\\\\0"', image);
}

async function createAndDestroy(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('create.img', 1 << 20, 4096);
  const device = await print(bench, `create -a ram:${image} -D -r -t 10`);
  const other = await print(bench, `create -R -a aio:${image}`);
  t.equal(other, `${bench.runtimeDir}/tap/tapdev1`);
  t.equal((await bench.try('printf x | dd of="$1" conv=notrunc status=none', other)).status, 1, '-R is read-only');
  const lines = (await print(bench, 'list')).split('\n');
  t.equal(lines.length, 2);
  const pids = lines.map((line) => /^pid=(\d+)/.exec(line)?.[1]);
  t.not(pids[0], pids[1], 'a tapdisk each');
  t.equal(await print(bench, `list -p ${pids[1]}`), lines[1]);
  t.equal(await print(bench, 'list -m 0'), lines[0]);
  t.equal(await print(bench, 'list -t ram'), lines[0]);
  t.equal(await print(bench, `list -f ${image}`), lines.join('\n'));
  t.equal(await print(bench, 'list -t sync'), '');
  const stats = await print(bench, `stats -p ${pids[0]} -m 0`);
  t.match(stats, '"driver": { "type": 5, "name": "ram", "status": null }');

  const client = await Client.open(t, bench, 'read', device);
  await fail(t, bench, `destroy -p ${pids[0]} -m 0`, { status: errno.EBUSY, says: /in use by/ });
  t.equal(await print(bench, 'list -m 0'), lines[0], 'it is as it was: one that is not passed through can be opened');
  await print(bench, `pause -p ${pids[0]} -m 0`);
  await print(bench, `unpause -p ${pids[0]} -m 0`);
  await client.release();
  await print(bench, `destroy -p ${pids[0]} -m 0 -t 5`);
  await print(bench, `destroy -p ${pids[1]} -m 1`);
  for (const line of ['create -a aio:/nowhere', `create -a nodriver:${image}`]) {
    await fail(t, bench, line, { status: errno.ENOENT, says: /./ });
    t.equal(await print(bench, 'list'), '', 'nothing is left of it');
  }
  const [one, two] = await Promise.all([print(bench, 'allocate'), print(bench, 'allocate')]);
  t.not(one, two, 'two at once get two minors');
  await Promise.all([print(bench, 'free -m 0'), print(bench, 'free -m 1')]);
  t.same(await bench.traces(), []);
}

async function loseTapdisk(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('lost.img', 1 << 20);
  const device = await print(bench, `create -a aio:${image}`);
  const pid = Number(/^pid=(\d+)/.exec(await print(bench, 'list'))?.[1]);
  process.kill(pid, 'SIGKILL');
  await eventually('the state', 10_000, async () => (await print(bench, 'list')).includes('state=0x1 '));
  t.equal(await print(bench, 'list'), `pid=${pid} minor=0 state=0x1 args=aio:${image}`, 'dead');
  await bench.sh('cmp "$1" "$2"', device, image);
  await fail(t, bench, `pause -p ${pid} -m 0`, { status: errno.ENODEV, says: /is gone/ });
  await print(bench, `destroy -p ${pid} -m 0`);
  t.equal(await print(bench, 'list'), '');
  t.same(await bench.traces(), []);
}

/** As such scripts are written: they cut what tap-ctl prints in a pipe. */
const SCRIPT = `
set -eu
image=$1 copy=$2
device=$(tap-ctl create -a "aio:$image")
line=$(tap-ctl list | grep "args=aio:$image")
pid=$(echo "$line" | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p')
minor=$(echo "$line" | sed -n 's/.*minor=\\([0-9]*\\).*/\\1/p')
[ "$(basename "$device")" = "tapdev$minor" ]
kill -0 "$pid"
dd if=/dev/urandom of="$device" bs=4096 count=16 conv=notrunc,fsync 2>/dev/null
tap-ctl pause -p "$pid" -m "$minor"
tap-ctl list -m "$minor" | grep -q 'state=0x2a '
cp "$image" "$copy"
tap-ctl unpause -p "$pid" -m "$minor"
tap-ctl list -m "$minor" | grep -q 'state=0 '
cmp "$device" "$copy"
tap-ctl stats -p "$pid" -m "$minor" | perl -MJSON::PP -e 'print decode_json(<STDIN>)->{images}[0]{hits}[1], "\\n"'
tap-ctl destroy -p "$pid" -m "$minor"
[ -z "$(tap-ctl list)" ]
`;

async function runScript(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('script.img', 1 << 20);
  await bench.makeDirectory('bin');
  await bench.sh(
    'printf "#!/bin/sh\\nexec %s %s \\"\\$@\\"\\n" "$1" "$2" >bin/tap-ctl; chmod +x bin/tap-ctl',
    process.execPath,
    PROGRAM,
  );
  const env = { PATH: `${bench.path('bin')}:${process.env.PATH}:/usr/sbin:/sbin` };
  const { status, stdout, stderr } = await bench.execute('sh', ['-c', SCRIPT, 'sh', image, bench.path('copy.img')], {
    env,
  });
  t.equal(status, 0, stderr);
  t.equal(stdout, '128\n', 'sectors that were written');
  t.same(await bench.traces(), []);
}
