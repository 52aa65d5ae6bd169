/** The alert rules and the dashboard in docs/: they can be loaded, and the alerts fire when they have to. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { execute, isInstalled } from '../e2e/command.js';

const DOCS = new URL('../../../docs/', import.meta.url).pathname;
const RULES = join(DOCS, 'prometheus-rules.yml');
const skip = isInstalled('promtool') ? false : 'promtool is not installed';

/** An alert, the samples that make it fire, and the labels that it then has. */
const CASES: readonly [alert: string, series: string, values: string, labels: string][] = [
  [
    'FusetapBusRestarting',
    'fusetap_bus_state{bus="0",state="restarting"}',
    '1x5',
    'bus: "0", state: restarting, severity: critical',
  ],
  ['FusetapServerDies', 'fusetap_bus_restarts_total{bus="0"}', '0 1 2 3 4 5', 'bus: "0", severity: warning'],
  [
    'FusetapBusFailed',
    'fusetap_bus_state{bus="0",state="failed"}',
    '1x5',
    'bus: "0", state: failed, severity: critical',
  ],
  ['FusetapBusFailed', 'fusetap_bus_state{bus="0",state="dead"}', '1x5', 'bus: "0", state: dead, severity: critical'],
  [
    'FusetapBusOrphaned',
    'fusetap_bus_state{bus="0",state="orphaned"}',
    '1x5',
    'bus: "0", state: orphaned, severity: warning',
  ],
  [
    'FusetapBusNotAnswering',
    'fusetap_bus_state{bus="0",state="not-answering"}',
    '1x5',
    'bus: "0", state: not-answering, severity: critical',
  ],
  ['FusetapVbdBroken', 'fusetap_vbd_broken{bus="0",vdev="xvda"}', '1x5', 'bus: "0", vdev: xvda, severity: critical'],
  [
    'FusetapVbdBroken',
    'fusetap_vbd_image_gone{bus="0",vdev="xvda"}',
    '1x5',
    'bus: "0", vdev: xvda, severity: critical',
  ],
  [
    'FusetapVbdHangs',
    'fusetap_vbd_oldest_request_seconds{bus="0",vdev="xvda"}',
    '0 60 120 180 240 300',
    'bus: "0", vdev: xvda, severity: critical',
  ],
  [
    'FusetapVbdHangs',
    'fusetap_vbd_image_not_answering{bus="0",vdev="xvda"}',
    '1x5',
    'bus: "0", vdev: xvda, severity: critical',
  ],
  [
    'FusetapFlushErrors',
    'fusetap_vbd_flush_errors_total{bus="0",vdev="xvda"}',
    '0 0 1 1 1 1',
    'bus: "0", vdev: xvda, severity: critical',
  ],
  [
    'FusetapVbdErrors',
    'fusetap_vbd_errors_total{bus="0",vdev="xvda",kind="read"}',
    '0 0 3 3 3 3',
    'bus: "0", vdev: xvda, kind: read, severity: warning',
  ],
];

t.test('the rules can be loaded', { skip }, async (t) => {
  t.match(await execute('promtool', ['check', 'rules', RULES]), { status: 0 });
  const alerts = [...readFileSync(RULES, 'utf8').matchAll(/alert: (\w+)/g)].map(([, name]) => name);
  t.same([...new Set(CASES.map(([alert]) => alert))].sort(), alerts.sort(), 'each alert is tried');
});

t.test('each alert fires when it has to, and not before', { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'alerts-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const tests = CASES.flatMap(([alert, series, values, labels]) => {
    const quiet = values.replace(/\d+/g, (digits, at: number) => (values[at - 1] === 'x' ? digits : '0'));
    const test = (given: string, expected: string): string => `
  - interval: 1m
    input_series: [{series: '${series}', values: '${given}'}]
    alert_rule_test:
      - {eval_time: 5m, alertname: ${alert}, exp_alerts: ${expected}}`;
    // annotations are compared, too
    return [test(values, `[{exp_labels: {${labels}}, exp_annotations: ANNOTATIONS}]`), test(quiet, '[]')];
  });
  // what the alerts say is not compared: the lines of the rules are loaded without it
  const bare = readFileSync(RULES, 'utf8').replace(/^ {8}annotations:\n(?: {10}.*\n)+/gm, '');
  writeFileSync(join(directory, 'rules.yml'), bare);
  const text = `rule_files: [rules.yml]\ntests:${tests.join('').replaceAll('ANNOTATIONS', '{}')}\n`;
  writeFileSync(join(directory, 'tests.yml'), text);
  const { status, stdout, stderr } = await execute('promtool', ['test', 'rules', join(directory, 'tests.yml')]);
  t.equal(status, 0, `${stdout}${stderr}`);
});

t.test('the dashboard is JSON, and each panel has a query and a place', async (t) => {
  interface Panel {
    id: number;
    title: string;
    gridPos: { x: number; y: number; w: number; h: number };
    targets: { expr: string }[];
  }
  const { panels, title } = JSON.parse(readFileSync(join(DOCS, 'grafana-dashboard.json'), 'utf8')) as {
    panels: Panel[];
    title: string;
  };
  t.equal(title, 'fusetap');
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  for (const { title, gridPos, targets } of panels) {
    t.ok(gridPos.x + gridPos.w <= 24, title);
    t.ok(targets.length > 0 && targets.every(({ expr }) => expr.includes('fusetap_')), title);
  }
});
