/** The picture of a disk: its cells, and an SVG document that stays valid, small and true. */
import { execFileSync } from 'node:child_process';
import t from 'tap';
import { Cells, CLASSES } from '../../cli/picture/cells.js';
import { drawPicture } from '../../cli/picture/draw.js';
import type { Picture } from '../../cli/picture/picture.js';
import { escapeXml, shorten } from '../../cli/picture/xml.js';
import type { MapExtent } from '../../mount/client/ranges/map.js';
import { whyNot } from '../e2e/fixtures.js';

const MIB = 2 ** 20;
const TIB = 2 ** 40;

const data: Omit<MapExtent, 'start' | 'length'> = {
  ...{ depth: 0, present: true, zero: false, data: true, compressed: false, offset: null, filename: null },
};
const zeros = { ...data, zero: true, data: false };

function picture(cells: Cells, more: Partial<Picture> = {}): string {
  return drawPicture({ name: 'disk', cells, partitions: [], changes: null, ...more });
}

t.test('any disk has at most 2048 cells, of a power of two', (t) => {
  for (const [size, cellBytes, count] of [
    [1, 512, 1],
    [MIB, 512, 2048],
    [MIB + 1, 1024, 1025],
    [2 * TIB, 2 ** 30, 2048],
    [3 * TIB, 2 ** 31, 1536],
  ] as const) {
    const cells = new Cells(size);
    t.match(cells, { cellBytes, count }, `${size} bytes`);
  }
  t.end();
});

t.test('a cell counts what is in it to the byte', (t) => {
  const cells = new Cells(2 * TIB);
  cells.add({ ...zeros, start: 0, length: 2 * TIB - 4096 });
  cells.add({ ...data, start: 2 * TIB - 4096, length: 4096 });
  t.same(cells.shares(0), [{ which: CLASSES.findIndex(({ kind }) => kind === 'zeros'), share: 1 }]);
  const last = cells.shares(2047);
  t.equal(last[0]?.share, 4096 / 2 ** 30, 'a part that is small is there');
  t.equal(last[0]?.which, 0);
  t.equal(cells.sums[0], 4096);
  cells.mark({ start: 2 ** 30 - 512, length: 1024 });
  t.equal(cells.changedShare(0), 512 / 2 ** 30);
  t.equal(cells.changedShare(1), 512 / 2 ** 30);
  t.equal(cells.changedShare(2), 0);
  t.end();
});

t.test('the last cell, and ranges behind the end', (t) => {
  const cells = new Cells(MIB + 256);
  cells.add({ ...data, start: MIB, length: 4096 });
  t.equal(cells.bytesOf(1024), 256);
  t.equal(cells.shares(1024)[0]?.share, 1);
  t.equal(cells.sums[0], 256, 'what is behind the end is not counted');
  t.end();
});

t.test('deep chains share the last class', (t) => {
  const cells = new Cells(MIB);
  for (let depth = 0; depth < 30; depth++) {
    cells.add({ ...data, depth, start: depth * 1024, length: 1024, offset: 0, filename: `/img/${depth}.qcow2` });
  }
  const svg = picture(cells);
  t.match(svg, 'data, depth 6: 1K in /img/6.qcow2');
  t.match(svg, 'data, depth 7 and deeper: 23K in /img/7.qcow2 and other files');
  t.notMatch(svg, 'depth 8');
  t.end();
});

/** What a parser of XML finds in the document: its root, its title, and all texts. */
function parse(svg: string): { root: string; title: string; texts: string[] } {
  const script = `
import json, sys, xml.dom.minidom
top = xml.dom.minidom.parseString(sys.stdin.buffer.read()).documentElement
text = lambda node: ''.join(each.data for each in node.childNodes)
print(json.dumps({'root': top.tagName, 'title': text(top.getElementsByTagName('title')[0]),
                  'texts': [text(each) for each in top.getElementsByTagName('text')]}))`;
  return JSON.parse(execFileSync('python3', ['-c', script], { input: svg, encoding: 'utf8' }));
}

t.test('hostile names stay text', { skip: whyNot('python3') }, (t) => {
  const name = `a"b'<img src=x onerror=alert(1)>&amp;\u0000\u001b[31m\ufffe\ud800]]>--><script>`;
  const cells = new Cells(MIB);
  cells.add({ ...data, start: 0, length: MIB, filename: `/img/${name}`, offset: 0 });
  const svg = picture(cells, { name, changes: name, partitions: [{ name, offset: 0, size: MIB }] });
  const { root, title, texts } = parse(svg);
  t.equal(root, 'svg');
  t.match(title, '<img src=x onerror=alert(1)>&amp;\\x00\\x1b[31m');
  t.ok(
    texts.some((text) => text.includes('onerror')),
    'in the legend',
  );
  t.notMatch(svg, /<(img|script)/);
  t.end();
});

t.test('the document is small, whatever the disk contains', (t) => {
  const cells = new Cells(2 * TIB);
  const step = TIB / 2 ** 16;
  for (let i = 0; i < 2 ** 17; i++) {
    const [start, depth] = [i * step, (i * 7) % 11];
    cells.add({ ...(i % 3 === 0 ? zeros : data), compressed: i % 5 === 0, depth, start, length: step });
    if (i % 2 === 0) cells.mark({ start, length: step });
  }
  const partitions = Array.from({ length: 128 }, (_, i) => ({ name: `p${i}`, offset: i * 2 ** 34, size: 2 ** 34 }));
  const svg = picture(cells, { changes: 'changed', partitions });
  t.ok(svg.length < 600_000, `${svg.length} characters`);
  t.match(svg, 'and 112 more', 'not all partitions are listed');
  t.end();
});

t.test('it has words for those who do not see it', (t) => {
  const cells = new Cells(MIB);
  cells.add({ ...data, start: 0, length: MIB / 4 });
  cells.add({ ...data, compressed: true, depth: 1, start: MIB / 4, length: MIB / 4 });
  cells.add({ ...zeros, start: MIB / 2, length: MIB / 4 });
  cells.add({ ...zeros, present: false, start: (3 * MIB) / 4, length: MIB / 4 });
  cells.mark({ start: 0, length: 4096 });
  const svg = picture(cells, { changes: 'written since the attach' });
  t.match(svg, /<svg [^>]*role="img" aria-labelledby="title desc"/);
  const [, desc = ''] = /<desc id="desc">(.*)<\/desc>/.exec(svg) ?? [];
  for (const text of ['data, depth 0: 256K in memory', 'compressed, depth 1: 256K', 'zeros, or a hole: 256K']) {
    t.match(desc, text);
  }
  t.match(desc, 'absent: no image has it, it reads as zeros: 256K');
  t.match(desc, 'written since the attach: 4K');
  t.match(svg, '<title>0 to 32K: 32K data of depth 0, 4K changed</title>', 'of a row');
  t.match(svg, '@media(prefers-color-scheme:dark)');
  t.match(svg, 'url(#hatch)', 'compressed has a pattern');
  t.match(svg, 'url(#dots)', 'absent has a pattern');
  t.end();
});

t.test('names', (t) => {
  t.equal(escapeXml(`<a href="x">'&'</a>`), '&lt;a href=&quot;x&quot;&gt;&apos;&amp;&apos;&lt;/a&gt;');
  t.equal(shorten('short', 10), 'short');
  t.equal(shorten('/a/long/path/to/disk.img', 12), '/a/…disk.img');
  t.end();
});
