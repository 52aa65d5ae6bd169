/**
 * What buses count, as text for Prometheus: OpenMetrics 1.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/), or
 * the older Prometheus text format 0.0.4, which files of node_exporter and `promtool check metrics` have. They differ in
 * the names of counters and in the last line.
 *
 * A family is all samples of one name. Names follow https://prometheus.io/docs/practices/naming/: base units, `_total`
 * for counters. Text that comes from outside, such as paths of images, is only in values of labels, and escaped there.
 *
 * prom-client would not help: its counters can only be increased and its histograms only observe, while all our values
 * are read from the ledger. Without its registry, what is left of it is the printing.
 */
import {
  type BusCounters,
  type BusState,
  KINDS,
  type Kind,
  type KindCounters,
  OPEN_METRICS_TYPE,
  type VbdCounters,
} from './interface.js';

export const FORMATS = ['openmetrics', 'prometheus'] as const;
export type MetricsFormat = (typeof FORMATS)[number];

/** The media types of the formats. */
export const MEDIA_TYPES: Record<MetricsFormat, string> = {
  openmetrics: OPEN_METRICS_TYPE,
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
};

/** The states of a bus, as `fusetap_bus_state` has them: those of a bus that answers, and those that others see. */
export const BUS_STATES = [
  ...(['running', 'restarting', 'orphaned', 'failed'] as const satisfies readonly BusState[]),
  ...(['dead', 'not-answering'] as const),
];

/** The bounds of the printed histograms: bounds of the counted ones too, so nothing is estimated. */
const BOUNDS = Array.from({ length: 22 }, (_, i) => ({ us: 2 ** (i + 3), seconds: String(2 ** (i + 3) / 1e6) }));

/** A bus that does not answer. */
export interface SilentBus {
  readonly bus: string;
  readonly state: 'dead' | 'not-answering';
}

/** The format that a scraper asks for: OpenMetrics, unless it takes only other text. */
export function formatFor(accept: string | undefined): MetricsFormat {
  const isPlain = accept !== undefined && /text\/plain/.test(accept) && !/openmetrics/.test(accept);
  return isPlain ? 'prometheus' : 'openmetrics';
}

/** Printed labels, `key="value"` each: those of a vbd are printed once for all its samples, of which there are many. */
type Labels = string;
type Sample = readonly [labels: Labels, value: number];

interface Family {
  /** without `_total` */
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  /** All its lines. @param line gives that of one sample */
  readonly lines: (line: PrintLine) => string;
}

type PrintLine = (labels: Labels, value: number) => string;

/** All metrics of the buses. */
export function printMetrics(
  buses: readonly BusCounters[],
  format: MetricsFormat,
  silent: readonly SilentBus[] = [],
): string {
  const vbds = buses.flatMap((each) => each.vbds.map((vbd) => nameVbd(each.bus, vbd)));
  const families = [
    ...busFamilies(buses, silent),
    ...processFamilies(buses),
    ...vbdFamilies(vbds),
    ...requestFamilies(vbds),
  ];
  const text = families.map((family) => printFamily(family, format)).join('');
  return format === 'openmetrics' ? `${text}# EOF\n` : text;
}

function busFamilies(buses: readonly BusCounters[], silent: readonly SilentBus[]): Family[] {
  const each = (samples: (bus: BusCounters) => Sample[]): Sample[] => buses.flatMap(samples);
  const states = [...buses, ...silent].flatMap(({ bus, state }) =>
    BUS_STATES.map((one): Sample => [labelled({ bus, state: one }), state === one ? 1 : 0]),
  );
  return [
    gauge('fusetap_bus_state', 'The state of the bus: 1 for the one that it has.', states),
    counter(
      'fusetap_bus_restarts',
      'How often the server of the bus was replaced.',
      each(({ bus, restarts }) => (restarts === null ? [] : [[labelled({ bus }), restarts]])),
    ),
    gauge(
      'fusetap_bus_waiting_requests',
      'Requests that the kernel has, sent to the server or not, that are not answered.',
      each(({ bus, waiting }) => (waiting === null ? [] : [[labelled({ bus }), waiting]])),
    ),
    gauge(
      'fusetap_bus_vbds',
      'How many vbds the bus has.',
      each(({ bus, vbds }) => [[labelled({ bus }), vbds.filter(({ disk }) => disk === null).length]]),
    ),
  ];
}

function processFamilies(buses: readonly BusCounters[]): Family[] {
  const each = (value: (used: NonNullable<BusCounters['server']>) => number | null): Sample[] =>
    buses.flatMap(({ bus, keeper, server }) =>
      Object.entries({ keeper, server }).flatMap(([process, used]): Sample[] => {
        const found = used === null ? null : value(used);
        return found === null ? [] : [[labelled({ bus, process }), found]];
      }),
    );
  return [
    counter(
      'fusetap_process_cpu_seconds',
      'Processor time since the process started.',
      each(({ cpuMs }) => cpuMs / 1e3),
    ),
    gauge(
      'fusetap_process_resident_memory_bytes',
      'Memory in use, with shared pages.',
      each(({ rssBytes }) => rssBytes),
    ),
    gauge(
      'fusetap_process_proportional_memory_bytes',
      'Memory in use; a page that n processes share counts as 1/n. Up to ten seconds old.',
      each(({ pssBytes }) => pssBytes),
    ),
  ];
}

interface NamedVbd {
  readonly labels: Labels;
  /** the same with the kind of request */
  readonly kindLabels: Readonly<Record<Kind, Labels>>;
  readonly vbd: VbdCounters;
}

function nameVbd(bus: string, vbd: VbdCounters): NamedVbd {
  const labels = labelled({ bus, vdev: vbd.vdev });
  const kind = (name: Kind): Labels => `${labels},kind="${name}"`;
  return {
    labels,
    kindLabels: { read: kind('read'), write: kind('write'), flush: kind('flush'), discard: kind('discard') },
    vbd,
  };
}

/** What gives the lines of the samples of vbds, or of each kind of request to them: one string, because it is long. */
function samplers(named: readonly NamedVbd[]) {
  const each =
    (linesOf: (named: NamedVbd, line: PrintLine) => string) =>
    (line: PrintLine): string => {
      let text = '';
      for (const one of named) text += linesOf(one, line);
      return text;
    };
  const one = (value: (vbd: VbdCounters) => number) => each(({ labels, vbd }, line) => line(labels, value(vbd)));
  const kinds = (value: (counters: KindCounters) => number) =>
    each(({ kindLabels, vbd }, line) => {
      let text = '';
      for (const kind of KINDS) text += line(kindLabels[kind], value(vbd[kind]));
      return text;
    });
  const flag = (is: (vbd: VbdCounters) => boolean) => one((vbd) => Number(is(vbd)));
  return { each, kinds, one, flag };
}

function vbdFamilies(vbds: readonly NamedVbd[]): Family[] {
  const { each, one, flag } = samplers(vbds);
  return [
    gauge(
      'fusetap_vbd_info',
      'What is attached; always 1.',
      each(({ labels, vbd }, line) => line(`${labels},${facts(vbd)}`, 1)),
    ),
    gauge(
      'fusetap_vbd_size_bytes',
      'The size of the disk.',
      one(({ size }) => size),
    ),
    gauge(
      'fusetap_vbd_open_handles',
      'How often its file is open, as far as known.',
      one(({ opens }) => opens),
    ),
    gauge(
      'fusetap_vbd_paused',
      '1 while its requests wait.',
      flag(({ state }) => state === 'paused'),
    ),
    gauge(
      'fusetap_vbd_passthrough',
      '1: the kernel does its I/O, which is not counted.',
      flag((vbd) => vbd.passthrough),
    ),
    gauge(
      'fusetap_vbd_broken',
      '1: all its I/O fails.',
      flag(({ broken }) => broken !== null),
    ),
    gauge(
      'fusetap_vbd_image_gone',
      '1: its image is lost.',
      flag(({ imageState }) => imageState === 'gone'),
    ),
    gauge(
      'fusetap_vbd_image_not_answering',
      '1: the file system of its image did not answer when it was last asked.',
      flag(({ imageState }) => imageState === 'not-answering'),
    ),
  ];
}

function requestFamilies(vbds: readonly NamedVbd[]): Family[] {
  const { each, kinds, one } = samplers(vbds);
  return [
    counter(
      'fusetap_vbd_requests',
      'Requests that were answered.',
      kinds(({ requests }) => requests),
    ),
    counter(
      'fusetap_vbd_bytes',
      'Bytes of these requests.',
      kinds(({ bytes }) => bytes),
    ),
    counter(
      'fusetap_vbd_errors',
      'Requests that failed.',
      kinds(({ errors }) => errors),
    ),
    counter(
      'fusetap_vbd_flush_errors',
      'Flushes and write-backs that failed: acknowledged writes may be lost.',
      one(({ flushErrors }) => flushErrors),
    ),
    gauge(
      'fusetap_vbd_requests_in_progress',
      'Requests that the server works on.',
      one(({ inProgress }) => inProgress),
    ),
    gauge(
      'fusetap_vbd_oldest_request_seconds',
      'How long the oldest of them has been seen in progress, at least.',
      one(({ oldestMs }) => oldestMs / 1e3),
    ),
    {
      name: DURATION,
      type: 'histogram',
      help: 'How long the server worked on requests. A kind is here from its first request on; sums are estimated.',
      lines: each(durations),
    },
  ];
}

const DURATION = 'fusetap_vbd_request_duration_seconds';

/** The lines of histograms, as last printed: those of an idle vbd are the same each time, and are most of the text. */
const printed = new WeakMap<KindCounters['histogram'], { readonly labels: Labels; readonly lines: string }>();

function durations({ kindLabels, vbd }: NamedVbd): string {
  let text = '';
  for (const kind of KINDS) {
    const { histogram } = vbd[kind];
    const known = printed.get(histogram);
    const own = kindLabels[kind];
    const lines = known?.labels === own ? known.lines : histogramLines(DURATION, own, histogram);
    if (lines !== '' && known?.lines !== lines) printed.set(histogram, { labels: own, lines });
    text += lines;
  }
  return text;
}

function facts({ disk, driver, image, mode }: VbdCounters): Labels {
  return labelled({ disk: disk ?? '', driver, image: image ?? '', mode });
}

/**
 * The lines of a histogram, cumulative; none before the first request, because an idle vbd must cost little. Most lines of
 * a busy bus are these, so they are printed without a detour.
 */
function histogramLines(name: string, labels: Labels, buckets: KindCounters['histogram']): string {
  if (buckets.length === 0) return '';
  const head = `${name}_bucket{${labels},le="`;
  let text = '';
  let [next, count, sumUs] = [0, 0, 0];
  const take = (boundUs: number): void => {
    for (let bucket = buckets[next]; bucket !== undefined && bucket[1] <= boundUs; bucket = buckets[++next]) {
      count += bucket[2];
      sumUs += ((bucket[0] + bucket[1]) / 2) * bucket[2];
    }
  };
  for (const { us, seconds } of BOUNDS) {
    take(us);
    text += `${head}${seconds}"} ${count}\n`;
  }
  take(Number.POSITIVE_INFINITY);
  return `${text}${head}+Inf"} ${count}\n${name}_sum{${labels}} ${sumUs / 1e6}\n${name}_count{${labels}} ${count}\n`;
}

function gauge(name: string, help: string, samples: Samples): Family {
  return { name, type: 'gauge', help, lines: linesOf(samples) };
}

function counter(name: string, help: string, samples: Samples): Family {
  return { name, type: 'counter', help, lines: linesOf(samples) };
}

type Samples = readonly Sample[] | Family['lines'];

function linesOf(samples: Samples): Family['lines'] {
  if (typeof samples === 'function') return samples;
  return (line) => samples.map(([labels, value]) => line(labels, value)).join('');
}

function printFamily({ name, type, help, lines }: Family, format: MetricsFormat): string {
  const sampled = type === 'counter' ? `${name}_total` : name;
  const head = format === 'openmetrics' ? name : sampled;
  return `# HELP ${head} ${help}\n# TYPE ${head} ${type}\n${lines((labels, value) => `${sampled}{${labels}} ${value}\n`)}`;
}

function labelled(values: Readonly<Record<string, string>>): Labels {
  return Object.entries(values)
    .map(([key, value]) => `${key}="${escapeLabel(value)}"`)
    .join(',');
}

const SPECIAL = /[\\"\n]|\p{Surrogate}/gu;

/** Both formats escape these three characters, and no other. A lone surrogate is not UTF-8. */
function escapeLabel(value: string): string {
  return value.replace(SPECIAL, (found) =>
    found === '\n' ? '\\n' : found.length === 1 && found > '~' ? '\ufffd' : `\\${found}`,
  );
}
