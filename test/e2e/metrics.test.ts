/**
 * Metrics of real buses, judged by Prometheus itself: promtool reads the text, a server scrapes it, and the dashboard and
 * the alerts in docs/ use only metrics that there are.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { collect, eventually, freePort } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { replaceServer } from './kill-server.js';

t.setTimeout(300_000);

const DOCS = new URL('../../../docs/', import.meta.url).pathname;
const SIZE = 1 << 20;
/** what labels must escape, and what is not ASCII */
const ODD = 'a"b\\c\\n 日本 é {x="y"} 1.img';

async function busesWithOddNames(bench: Bench): Promise<string> {
  const vbd = await bench.attach(await bench.image('plain.img', SIZE));
  await bench.attach('--driver', 'aio', '--image', await bench.image(ODD, SIZE), '--vdev', 'xvdb');
  await bench.begin('--bus', 'idle');
  await bench.sh('dd if="$1" of=/dev/null bs=4k iflag=direct status=none', vbd);
  await bench.sh('dd if=/dev/zero of="$1" bs=4k count=10 oflag=direct conv=notrunc,fsync status=none', vbd);
  return vbd;
}

onDefaultTransport(t, ['promtool', 'prometheus', 'dd', 'curl'], async (t, transport) => {
  await t.test('promtool accepts them', async (t) => judge(t, await openBench(t, transport)));
  await t.test('Prometheus scrapes them', async (t) => scrape(t, await openBench(t, transport)));
  await t.test('the bus itself answers /metrics', async (t) => askBus(t, await openBench(t, transport)));
  await t.test('what is wrong', async (t) => refuse(t, await openBench(t, transport)));
});

/** The value of a sample with exactly these labels. */
function sampleOf(text: string, sample: string): number {
  const line = text.split('\n').find((each) => each.startsWith(`${sample} `));
  return line === undefined ? Number.NaN : Number(line.slice(sample.length + 1));
}

async function judge(t: Test, bench: Bench): Promise<void> {
  await busesWithOddNames(bench);
  // the proportional memory is measured when somebody has asked, and told to who asks later
  let text = '';
  await eventually('the proportional memory', 60_000, async () => {
    text = await bench.succeed(['metrics']);
    return sampleOf(text, 'fusetap_process_proportional_memory_bytes{bus="0",process="server"}') > 0;
  });
  const checked = await bench.execute('promtool', ['check', 'metrics'], { input: `${text}\n` });
  t.match(checked, { status: 0, stdout: '', stderr: '' });
  const xvda = 'bus="0",vdev="xvda"';
  t.ok(sampleOf(text, `fusetap_vbd_bytes_total{${xvda},kind="read"}`) >= SIZE);
  t.equal(sampleOf(text, `fusetap_vbd_bytes_total{${xvda},kind="write"}`), 40960);
  const histogram = 'fusetap_vbd_request_duration_seconds';
  const writes = sampleOf(text, `fusetap_vbd_requests_total{${xvda},kind="write"}`);
  t.equal(writes, 10);
  t.equal(sampleOf(text, `${histogram}_count{${xvda},kind="write"}`), writes);
  t.equal(sampleOf(text, `${histogram}_bucket{${xvda},kind="write",le="+Inf"}`), writes);
  t.ok(sampleOf(text, `${histogram}_sum{${xvda},kind="write"}`) > 0);
  t.equal(sampleOf(text, 'fusetap_bus_state{bus="idle",state="running"}'), 1);
  t.equal(sampleOf(text, 'fusetap_bus_vbds{bus="idle"}'), 0);
  t.ok(sampleOf(text, 'fusetap_process_proportional_memory_bytes{bus="0",process="server"}') > 1e6);
  await replaceServer(bench);
  const later = await bench.succeed(['metrics', '--bus', '0']);
  t.equal(sampleOf(later, 'fusetap_bus_restarts_total{bus="0"}'), 1);
  t.equal(sampleOf(later, `fusetap_vbd_requests_total{${xvda},kind="write"}`), writes, 'counters outlive the server');
  t.notOk(later.includes('bus="idle"'), 'only the bus that was asked for');
  // docs/seeing.md has exactly these metrics
  const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name).sort();
  const page = await readFile(join(DOCS, 'seeing.md'), 'utf8');
  t.same([...page.matchAll(/^\| `(fusetap_\w+)` \|/gm)].map(([, name]) => name).sort(), names);
  const known = new Set([...text.matchAll(/^(fusetap_\w+)\{/gm)].map(([, name]) => name));
  for (const file of ['grafana-dashboard.json', 'prometheus-rules.yml']) {
    const used = [...(await readFile(join(DOCS, file), 'utf8')).matchAll(/fusetap_\w+/g)].map(([name]) => name);
    // a machine without fusectl has no such samples
    const missing = new Set(used.filter((name) => !known.has(name) && name !== 'fusetap_bus_waiting_requests'));
    t.same([...missing], [], `${file} uses only metrics that there are`);
  }
}

async function scrape(t: Test, bench: Bench): Promise<void> {
  await busesWithOddNames(bench);
  const serving = bench.startFusetap(['metrics', '--listen', '0'], { timeoutMs: 250_000 });
  const ended = collect(serving);
  let said = '';
  serving.stdout?.on('data', (text: string) => {
    said += text;
  });
  const target = await eventually(
    'the line',
    30_000,
    () => /^metrics at http:\/\/(127\.0\.0\.1:\d+)\/metrics\n$/.exec(said)?.[1],
  );
  const statusFor = async (host: string): Promise<string> => {
    const asked = [
      '-s',
      '-o',
      bench.path('answer'),
      '-w',
      '%{http_code}',
      '-H',
      `Host: ${host}`,
      `http://${target}/metrics`,
    ];
    return (await bench.execute('curl', asked)).stdout;
  };
  t.equal(await statusFor('localhost:1'), '200');
  t.equal(await statusFor('evil.example'), '403', 'a page that points its name to this machine');
  const port = await freePort();
  const config = `global: {scrape_interval: 1s}\nscrape_configs: [{job_name: fusetap, static_configs: [{targets: ['${target}']}]}]\n`;
  await writeFile(bench.path('prometheus.yml'), config);
  await mkdir(bench.path('data'));
  const prometheus = bench.startProgram(
    'prometheus',
    [
      ...[`--config.file=${bench.path('prometheus.yml')}`, `--storage.tsdb.path=${bench.path('data')}`],
      ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=warn'],
    ],
    { timeoutMs: 250_000 },
  );
  const over = collect(prometheus);
  const query = async (expression: string): Promise<Result[]> => {
    const url = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`;
    const answer = await fetch(url).catch(() => null);
    return answer?.ok ? ((await answer.json()) as { data: { result: Result[] } }).data.result : [];
  };
  const found = async (expression: string): Promise<Result[]> =>
    await eventually(expression, 120_000, async () => {
      const results = await query(expression);
      return results.length > 0 && results;
    });
  try {
    const [info] = await found('fusetap_vbd_info{vdev="xvdb"}');
    t.equal(info?.metric.image, bench.path(ODD), 'the label is the name, byte for byte');
    const [writes] = await found('fusetap_vbd_requests_total{vdev="xvda",kind="write"}');
    t.equal(writes?.value[1], '10');
    const quantile = 'histogram_quantile(0.5, fusetap_vbd_request_duration_seconds_bucket{vdev="xvda",kind="write"})';
    t.ok(Number((await found(quantile))[0]?.value[1]) > 0);
    const [up] = await found('up{job="fusetap"}');
    t.equal(up?.value[1], '1');
  } finally {
    prometheus.kill('SIGTERM');
    serving.kill('SIGTERM');
    await over;
  }
  t.match(await ended, { status: 0, stderr: '' });
}

interface Result {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [time: number, value: string];
}

async function askBus(t: Test, bench: Bench): Promise<void> {
  await busesWithOddNames(bench);
  const ask = async (...words: string[]) => {
    const socket = join(bench.runtimeDir, 'state/0/control.sock');
    return await bench.execute('curl', ['-sSi', '--unix-socket', socket, ...words, 'http://fusetap/metrics']);
  };
  const open = await ask();
  t.match(open.stdout, /^content-type: application\/openmetrics-text; version=1\.0\.0; charset=utf-8\r$/im);
  t.ok(open.stdout.endsWith('# EOF\n'));
  t.match(open.stdout, /^# TYPE fusetap_bus_restarts counter\nfusetap_bus_restarts_total\{bus="0"\} 0$/m);
  const plain = await ask('-H', 'accept: text/plain;version=0.0.4');
  t.match(plain.stdout, /^content-type: text\/plain; version=0\.0\.4; charset=utf-8\r$/im);
  const text = plain.stdout.slice(plain.stdout.indexOf('\r\n\r\n') + 4);
  t.match(await bench.execute('promtool', ['check', 'metrics'], { input: text }), {
    status: 0,
    stdout: '',
    stderr: '',
  });
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  for (const place of ['', 'x', '65536', '1:2:3', '127.0.0.1:', '[::1:9']) {
    t.match(await bench.fusetap(['metrics', '--listen', place]), { status: 2, stdout: '' }, place);
  }
  t.match(await bench.fusetap(['metrics', '--listen', '1', '--openmetrics']), { status: 2 });
  t.match(await bench.fusetap(['metrics', '--listen', '192.0.2.1:1']), {
    status: 1,
    stderr: /cannot listen on 192\.0\.2\.1:1/,
  });
  t.match(await bench.fusetap(['metrics', '--bus', 'none']), { status: 3, stdout: '' });
  const none = await bench.succeed(['metrics']);
  t.match(
    await bench.execute('promtool', ['check', 'metrics'], { input: `${none}\n` }),
    { status: 0 },
    'no bus at all',
  );
  // a bus whose processes are gone is told, too
  await bench.begin();
  const state = join(bench.runtimeDir, 'state/0');
  await rename(join(state, 'control.sock'), join(state, 'gone.sock'));
  const text = await bench.succeed(['metrics']);
  t.match(text, /^fusetap_bus_state\{bus="0",state="(not-answering|running)"\} 1$/m);
  await bench.fusetap(['stop', '--force']);
}
