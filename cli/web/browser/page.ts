/**
 * The script of the page, compiled for browsers. It shows what the stream tells (cli/web/feed.ts). All that comes from the
 * stream becomes text, never markup. Rows are changed in place, so the focus and the selection of the reader stay.
 *
 *      EventSource ──► state ──► tables, notices        no message for a while ──► "connection lost"
 *                  └─► log ────► events
 */

interface Kind {
  perSecond: number;
  bytesPerSecond: number;
  requests: number;
  bytes: number;
}

interface Vbd {
  vdev: string;
  disk: string | null;
  image: string;
  mode: string;
  size: number;
  state: string;
  passthrough: boolean;
  broken: string | null;
  queue: number;
  p50: number | null;
  p99: number | null;
  errors: number;
  read: Kind;
  write: Kind;
}

interface Bus {
  bus: string;
  state: string;
  trouble: string | null;
  /** 0: it was counted only once, and there are no rates yet */
  seconds: number;
  restarts: number | null;
  newRestarts: number;
  serverPid: number | null;
  cpuPercent: number | null;
  memoryBytes: number | null;
  waiting: number | null;
  vbds: Vbd[];
}

interface State {
  trouble: string | null;
  buses: Bus[] | null;
}

interface Line {
  id: number;
  bus: string;
  event: string;
  text: string;
}

/** the stream tells something each second */
const LOST_MS = 5_000;
const RETRY_MS = 2_000;
const MOST_EVENTS = 200;
const MOST_NOTICES = 4;
const NOTICE_MS = 30_000;
const NARROW = '(max-width: 40rem)';
const BAD_EVENTS = new Set(['server-died', 'server-silent', 'server-spins', 'broken', 'not-durable', 'driver-error']);

const element = (id: string): HTMLElement => {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found;
};

function make(tag: string, text: string, ...classes: string[]): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  made.classList.add(...classes);
  return made;
}

// ── numbers for people ──────────────────────────────────────────────────────────────────────────────────────────────

function size(bytes: number | null): string {
  if (bytes === null) return '–';
  let [value, unit] = [bytes, 0];
  for (; value >= 1023.95 && unit < 5; unit++) value /= 1024;
  return `${value.toLocaleString('en', { maximumFractionDigits: 1 })}${['', 'K', 'M', 'G', 'T', 'P'][unit]}`;
}

function count(value: number | null): string {
  if (value === null) return '–';
  return value.toLocaleString('en', { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function latency(us: number | null): string {
  if (us === null) return '–';
  if (us < 1000) return `${us.toFixed(0)} µs`;
  return us < 1_000_000 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1_000_000).toFixed(1)} s`;
}

// ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Cell {
  text: string;
  /** the exact number behind the text */
  value?: number | null;
  classes?: string;
  /** makes the cell a button */
  press?: () => void;
  pressed?: boolean;
}

class Table {
  readonly #body: HTMLElement;
  readonly #labels: string[];
  readonly #kinds: string[];
  readonly #rows = new Map<string, HTMLTableRowElement>();

  constructor(id: string) {
    const table = element(id) as HTMLTableElement;
    this.#body = table.tBodies[0] as HTMLElement;
    const heads = [...table.querySelectorAll('th')];
    this.#labels = heads.map(({ textContent }) => textContent ?? '');
    this.#kinds = heads.map(({ className }) => className);
  }

  show(rows: ReadonlyMap<string, { cells: Cell[]; classes: string }>): void {
    for (const [key, row] of this.#rows) {
      if (rows.has(key)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    let before: Element | null = null;
    for (const [key, { cells, classes }] of rows) {
      const row = this.#rows.get(key) ?? this.#add(key, cells.length);
      const place: Element | null = before === null ? this.#body.firstElementChild : before.nextElementSibling;
      if (place !== row) this.#body.insertBefore(row, place);
      if (row.className !== classes) row.className = classes;
      cells.forEach((cell, index) => {
        this.#fill(row.cells[index] as HTMLTableCellElement, cell, index);
      });
      before = row;
    }
  }

  #add(key: string, cells: number): HTMLTableRowElement {
    const row = document.createElement('tr');
    for (let index = 0; index < cells; index++) {
      const cell = row.insertCell();
      cell.dataset.label = this.#labels[index] ?? '';
    }
    this.#rows.set(key, row);
    return row;
  }

  #fill(cell: HTMLTableCellElement, { text, value, classes = '', press, pressed }: Cell, index: number): void {
    const wanted = `${this.#kinds[index] ?? ''} ${classes}`.trim();
    if (cell.className !== wanted) cell.className = wanted;
    if (value != null) cell.dataset.value = String(value);
    else delete cell.dataset.value;
    if (press === undefined) {
      if (cell.textContent !== text) cell.textContent = text;
      return;
    }
    let button = cell.querySelector('button');
    if (button === null) {
      button = document.createElement('button');
      button.type = 'button';
      button.addEventListener('click', press);
      cell.append(button);
    }
    if (button.textContent !== text) button.textContent = text;
    button.setAttribute('aria-pressed', String(pressed === true));
  }
}

const buses = new Table('buses');
const disks = new Table('disks');

function showBuses(all: readonly Bus[]): void {
  const rows = all.map((bus): [string, { cells: Cell[]; classes: string }] => {
    const { state, trouble, restarts, cpuPercent, memoryBytes, waiting, seconds } = bus;
    const isBad = state !== 'running' && state !== 'paused';
    const cpu = seconds === 0 || cpuPercent === null ? '–' : `${count(cpuPercent)} %`;
    const cells: Cell[] = [
      { text: bus.bus, classes: 'name' },
      { text: trouble === null ? state : `${state}: ${trouble}`, classes: isBad ? 'bad' : '' },
      { text: count(restarts), value: restarts },
      { text: cpu, value: cpuPercent },
      { text: size(memoryBytes), value: memoryBytes },
      { text: count(waiting), value: waiting },
    ];
    return [bus.bus, { cells, classes: '' }];
  });
  buses.show(new Map(rows));
  element('no-buses').hidden = rows.length > 0;
}

function showDisks(all: readonly Bus[]): void {
  const rows = all.flatMap((bus) =>
    bus.vbds.map((vbd): [string, { cells: Cell[]; classes: string }] => {
      return [`${bus.bus}/${vbd.vdev}`, { cells: diskCells(bus, vbd), classes: vbd.disk === null ? '' : 'partition' }];
    }),
  );
  disks.show(new Map(rows));
  element('no-disks').hidden = rows.length > 0;
}

function diskCells(bus: Bus, vbd: Vbd): Cell[] {
  const { vdev, disk, broken, passthrough, image, queue, p50, p99, errors, read, write } = vbd;
  const state = bus.trouble === null ? vbd.state : bus.state;
  const isBad = broken !== null || (state !== 'running' && state !== 'paused');
  const known = bus.seconds > 0;
  const rate = (value: number): Cell => ({ text: known ? count(value) : '–', value });
  const bytes = (value: number): Cell => ({ text: known ? size(value) : '–', value });
  const name = `${bus.bus}/${vdev}`;
  return [
    {
      ...{ text: name, classes: 'name' },
      ...(disk === null && { press: () => choose(bus.bus, vdev), pressed: chosen === name }),
    },
    {
      text: broken !== null ? `broken: ${broken}` : passthrough ? `${state}; passthrough, not counted` : state,
      classes: isBad ? 'bad' : '',
    },
    rate(read.perSecond),
    bytes(read.bytesPerSecond),
    rate(write.perSecond),
    bytes(write.bytesPerSecond),
    { text: latency(p50), value: p50 },
    { text: latency(p99), value: p99 },
    { text: count(queue), value: queue },
    { text: size(read.bytes), value: read.bytes },
    { text: size(write.bytes), value: write.bytes },
    { text: count(errors), value: errors, classes: errors > 0 ? 'bad' : '' },
    {
      text: `${disk === null ? image : `partition of ${disk}`}, ${size(vbd.size)}, mode ${vbd.mode}`,
      classes: 'image',
    },
  ];
}

// ── what has just happened ──────────────────────────────────────────────────────────────────────────────────────────

let before: Map<string, Bus> | null = null;

function notice(text: string, isBad: boolean): void {
  const list = element('notices');
  const item = make('li', `${new Date().toLocaleTimeString()} ${text}`, ...(isBad ? ['bad'] : []));
  list.prepend(item);
  while (list.children.length > MOST_NOTICES) list.lastElementChild?.remove();
  setTimeout(() => item.remove(), NOTICE_MS);
}

function noticeChanges(all: readonly Bus[]): void {
  const now = new Map(all.map((bus) => [bus.bus, bus]));
  for (const [name, bus] of now) {
    const last = before?.get(name);
    if (bus.newRestarts > 0) notice(`bus ${name}: its server was replaced (${bus.restarts} in all)`, true);
    if (last === undefined && before !== null) notice(`bus ${name} has started`, false);
    if (last === undefined || last.state === bus.state) continue;
    const isWell = bus.state === 'running' || bus.state === 'paused';
    // the line before says it
    if (isWell && bus.newRestarts > 0) continue;
    notice(`bus ${name} is ${bus.state}${bus.trouble === null ? '' : `: ${bus.trouble}`}`, !isWell);
  }
  for (const name of before?.keys() ?? []) if (!now.has(name)) notice(`bus ${name} has ended`, false);
  before = now;
}

function showLog(lines: readonly Line[]): void {
  const list = element('events');
  for (const { id, bus, event, text } of lines) {
    lastLine = Math.max(lastLine, id);
    const item = make('li', '', ...(BAD_EVENTS.has(event) ? ['bad'] : []));
    item.append(make('span', bus, 'bus'), text);
    list.prepend(item);
  }
  while (list.children.length > MOST_EVENTS) list.lastElementChild?.remove();
}

// ── the chosen disk ─────────────────────────────────────────────────────────────────────────────────────────────────

let chosen: string | null = null;
let looks = 0;

function choose(bus: string, vdev: string): void {
  chosen = `${bus}/${vdev}`;
  element('chosen').hidden = false;
  element('chosen-title').textContent = `Disk ${vdev} of bus ${bus}`;
  element('chosen-title').focus();
  element('tree').textContent = '';
  (element('map') as HTMLImageElement).removeAttribute('src');
  void look(bus, vdev);
}

async function look(bus: string, vdev: string): Promise<void> {
  const own = ++looks;
  const isCurrent = (): boolean => own === looks;
  const query = `bus=${encodeURIComponent(bus)}&vdev=${encodeURIComponent(vdev)}`;
  const status = element('chosen-state');
  status.textContent = 'looking …';
  const [map, tree] = await Promise.all([
    loadMap(`map.svg?${query}&columns=${matchMedia(NARROW).matches ? 32 : 64}`),
    fetchText(`tree?${query}`),
  ]);
  if (!isCurrent()) return;
  status.textContent =
    [map.trouble, tree.trouble].filter((text) => text !== null).join('; ') ||
    `as of ${new Date().toLocaleTimeString()}`;
  if (map.url !== null) {
    const image = element('map') as HTMLImageElement;
    if (image.src.startsWith('blob:')) URL.revokeObjectURL(image.src);
    image.src = map.url;
    image.alt = `Map of ${vdev} of bus ${bus}: ${map.description}`;
  }
  if (tree.text !== null) element('tree').textContent = tree.text;
}

/** An image, which may have no script and no link: so nothing in it can become a part of this page. */
async function loadMap(url: string): Promise<{ url: string | null; description: string; trouble: string | null }> {
  const { text, trouble } = await fetchText(url);
  if (text === null) return { url: null, description: '', trouble };
  const [description = ''] = /<desc[^>]*>[^<]*<\/desc>/.exec(text) ?? [];
  const parsed = new DOMParser().parseFromString(description, 'text/xml');
  const blob = new Blob([text], { type: 'image/svg+xml' });
  return { url: URL.createObjectURL(blob), description: parsed.documentElement.textContent ?? '', trouble: null };
}

async function fetchText(url: string): Promise<{ text: string | null; trouble: string | null }> {
  try {
    const answer = await fetch(url);
    const text = await answer.text();
    return answer.ok ? { text, trouble: null } : { text: null, trouble: text.trim() };
  } catch {
    return { text: null, trouble: 'no answer' };
  }
}

element('again').addEventListener('click', () => {
  const [bus, vdev] = chosen?.split('/') ?? [];
  if (bus !== undefined && vdev !== undefined) void look(bus, vdev);
});
element('close').addEventListener('click', () => {
  chosen = null;
  looks++;
  element('chosen').hidden = true;
});

// ── the stream ──────────────────────────────────────────────────────────────────────────────────────────────────────

let lastMessage = Date.now();
let lastLine = 0;

function showLink(text: string, kind: 'good' | 'bad'): void {
  const link = element('link');
  if (link.textContent !== text) link.textContent = text;
  link.className = kind;
  document.body.classList.toggle('stale', kind === 'bad');
}

function connect(): void {
  const stream = new EventSource(`stream?after=${lastLine}`);
  stream.addEventListener('state', ({ data }: MessageEvent<string>) => {
    lastMessage = Date.now();
    const { trouble, buses: all } = JSON.parse(data) as State;
    if (all === null) return showLink(`the buses cannot be listed: ${trouble}`, 'bad');
    showLink('live', 'good');
    noticeChanges(all);
    showBuses(all);
    showDisks(all);
  });
  stream.addEventListener('log', ({ data }: MessageEvent<string>) => showLog(JSON.parse(data) as Line[]));
  stream.addEventListener('error', () => {
    // the browser tries again by itself, unless it got another answer
    if (stream.readyState !== EventSource.CLOSED) return;
    void explain();
    setTimeout(connect, RETRY_MS);
  });
}

async function explain(): Promise<void> {
  const { trouble } = await fetchText('page.css');
  if (trouble !== null && trouble !== 'no answer') {
    showLink('this address is not valid any more: open the URL that fusetap web has printed last', 'bad');
  } else if (trouble !== null) showLost();
}

function showLost(): void {
  showLink(`connection lost at ${new Date(lastMessage).toLocaleTimeString()}: trying again`, 'bad');
}

setInterval(() => {
  const isRefused = element('link').textContent?.startsWith('this address') ?? false;
  if (Date.now() - lastMessage > LOST_MS && !isRefused) showLost();
}, 1_000);

connect();
