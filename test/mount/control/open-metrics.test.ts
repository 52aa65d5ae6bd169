/** The text of metrics: names of outside are escaped so that Prometheus reads them back, and nothing else gets in. */
import fc from 'fast-check';
import t from 'tap';
import type { BusCounters, KindCounters, VbdCounters } from '../../../mount/control/interface.js';
import { formatFor, printMetrics } from '../../../mount/control/open-metrics.js';
import { execute, isInstalled } from '../../e2e/command.js';

const NOTHING: KindCounters = { requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] };

function busWith(image: string, read: KindCounters = NOTHING): BusCounters {
  const vbd: VbdCounters = {
    ...{ vdev: 'xvda', id: 2, disk: null, driver: 'aio', image, mode: 'w', size: 1 << 20, opens: 0, state: 'running' },
    ...{ passthrough: false, broken: null, imageState: null, inProgress: 0, oldestMs: 0, flushErrors: 0 },
    ...{ read, write: NOTHING, flush: NOTHING, discard: NOTHING },
  };
  const processes = { restarts: 3, keeper: null, server: null, waiting: null };
  return { bus: '0', path: '/b', run: '1', monotonicMs: 0, state: 'running', ...processes, vbds: [vbd] };
}

const HOSTILE = ['"', '\\', '\n', 'a"} 1\nfusetap_x 2\n', '\r\x00\x1b[2J', '日本', '\u202e', '\ud800x', '\\n', '😀'];

t.test(
  'promtool reads any name',
  { skip: isInstalled('promtool') ? false : 'promtool is not installed' },
  async (t) => {
    for (const name of HOSTILE) {
      const input = printMetrics([busWith(name)], 'prometheus');
      const { status, stdout, stderr } = await execute('promtool', ['check', 'metrics'], { input });
      t.same({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' }, JSON.stringify(name));
    }
  },
);

t.test('a name stays in its label', async (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 100 }), fc.constantFrom(...HOSTILE), (name, hostile) => {
      const text = printMetrics([busWith(name + hostile)], 'openmetrics');
      const shape = /^(#( \w+)* .*|# EOF|fusetap_\w+\{(\w+="([^"\\\n]|\\["\\n])*",?)*\} [\d.e+-]+)$/u;
      return text
        .split('\n')
        .slice(0, -1)
        .every((line) => shape.test(line));
    }),
  );
  const [line = ''] = /^fusetap_vbd_info.*$/m.exec(printMetrics([busWith('a"b\\c\nd')], 'openmetrics')) ?? [];
  t.match(line, 'image="a\\"b\\\\c\\nd"');
});

t.test('histograms are cumulative, and end with all requests', async (t) => {
  const read = {
    ...NOTHING,
    requests: 6,
    histogram: [
      [4, 5, 1],
      [7, 8, 2],
      [8, 10, 1],
      [2 ** 25, 2 ** 25 * 1.25, 2],
    ],
  };
  const text = printMetrics([busWith('/a', read as KindCounters)], 'openmetrics');
  const buckets = [...text.matchAll(/_bucket\{.*,le="(.*)"\} (\d+)/g)].map(([, bound, count]) => [
    bound,
    Number(count),
  ]);
  t.equal(buckets.length, 23);
  t.same(buckets.slice(0, 2), [
    ['0.000008', 3],
    ['0.000016', 4],
  ]);
  t.same(buckets.slice(-2), [
    ['16.777216', 4],
    ['+Inf', 6],
  ]);
  t.match(text, /_count\{.*kind="read"\} 6\n/);
  t.notMatch(text, /_bucket\{.*kind="write"/, 'a kind without requests has none');
});

t.test('the two formats', async (t) => {
  const open = printMetrics([busWith('/a')], 'openmetrics', [{ bus: 'x', state: 'dead' }]);
  t.match(open, /^# TYPE fusetap_bus_restarts counter\nfusetap_bus_restarts_total\{bus="0"\} 3\n/m);
  t.ok(open.endsWith('\n# EOF\n'));
  t.match(open, /^fusetap_bus_state\{bus="x",state="dead"\} 1$/m);
  const plain = printMetrics([busWith('/a')], 'prometheus');
  t.match(plain, /^# TYPE fusetap_bus_restarts_total counter\nfusetap_bus_restarts_total\{bus="0"\} 3\n/m);
  t.notMatch(plain, '# EOF');
  t.equal(formatFor(undefined), 'openmetrics');
  t.equal(formatFor('*/*'), 'openmetrics');
  t.equal(formatFor('text/plain;version=0.0.4;q=0.5,*/*;q=0.1'), 'prometheus');
  t.equal(formatFor('application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3'), 'openmetrics');
});
