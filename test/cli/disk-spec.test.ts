/**
 * Disk specs: golden tables for every rule, and properties that hold for any text.
 */
import fc from 'fast-check';
import t from 'tap';
import {
  combineWords,
  type DiskSpec,
  parseDiskList,
  parseSpec,
  parseWords,
  printSpec,
  printXlSpec,
} from '../../cli/disk-spec/index.js';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames, factsOf } from '../../drivers/names.js';
import { vdevOfSlot } from '../../mount/slots/slots.js';
import { NOTES, PARSED, PRINTED, REFUSED, WORDS } from './disk-spec.golden.js';

const PLAIN: DiskSpec = { driver: 'aio', image: null, vdev: null, mode: null, notes: [] };

const withoutNotes = (spec: DiskSpec): DiskSpec => ({ ...spec, notes: [] });

t.test('what each spec says', (t) => {
  for (const [text, parts] of PARSED) {
    t.strictSame(withoutNotes(parseSpec(text)), { ...PLAIN, ...parts }, JSON.stringify(text));
  }
  t.end();
});

t.test('what each spec is refused for', (t) => {
  for (const [text, code, message, hint] of REFUSED) {
    t.throws(() => parseSpec(text), { code, message, hint: hint ?? /./ }, JSON.stringify(text.slice(0, 80)));
  }
  t.end();
});

t.test('parameters without an effect are reported as notes', (t) => {
  for (const [text, expected] of NOTES) {
    const { notes } = parseSpec(text);
    t.equal(notes.length, expected.length, text);
    for (const [i, pattern] of expected.entries()) t.match(notes[i], pattern);
  }
  t.end();
});

t.test('words after the spec', (t) => {
  for (const [words, parts] of WORDS) {
    t.strictSame(withoutNotes(parseWords(...words)), { ...PLAIN, ...parts }, words.join(' '));
  }
  const spec = parseSpec('disk.img');
  t.strictSame(combineWords(spec), spec);
  t.match(combineWords(spec, 'hdc:cdrom', 'w').notes, [/mode r is used, not w/]);
  t.strictSame(spec, { ...PLAIN, image: 'disk.img' }, 'the spec that was given is unchanged');
  t.end();
});

t.test('arguments that contradict the spec, or are empty', (t) => {
  const refused: [string, string | undefined, string | undefined, RegExp][] = [
    ['/d,xvda', 'xvdb', undefined, /vdev xvda .* xvdb/],
    ['/d,xvda,r', 'xvda', 'w', /mode r .* w /],
    ['/d,xvda,w', 'xvda', 'w!', /mode w .* w! /],
    ['/d,hdc:cdrom', 'hdc', 'w', /mode r .* w /],
    ['/d', 'xvdA', undefined, /'xvdA'/],
    ['/d', '', undefined, /''/],
    ['/d', 'a/b', undefined, /'a\/b'/],
    ['/d', 'xvda', 'rw', /'rw'/],
    ['/d', 'xvda', '', /''/],
    ['target=/d', undefined, 'w', /no vdev/],
  ];
  for (const [text, vdev, mode, message] of refused) {
    t.throws(() => parseWords(text, vdev, mode), { code: 'USAGE', message, hint: /./ }, `${text} ${vdev} ${mode}`);
  }
  t.end();
});

t.test('third-party drivers, by name', (t) => {
  const options = { drivers: [...driverNames, 'iscsi', 'qed'] };
  t.match(parseSpec('ram:qed:iscsi:x', options), { driver: 'ram', below: ['qed'], image: 'iscsi:x' });
  t.match(parseSpec('tap:iscsi:host:3260,xvda,r', options), { driver: 'iscsi', image: 'host:3260', vdev: 'xvda' });
  t.match(parseSpec('iscsi:', options), { driver: 'iscsi', image: null });
  t.match(parseSpec('tap:qed:/d', options), { driver: 'qed', image: '/d' }, 'a driver of a format goes first');
  const byFormat = { driver: 'qed', image: '/d', vdev: 'xvda' };
  t.match(parseSpec('format=qed, vdev=xvda, target=/d', options), byFormat, "xl's format names its driver");
  t.match(parseSpec('/d,qed,xvda', options), byFormat);
  t.match(parseSpec('format=qed,vdev=xvda,target=tap:qed:/d', options), byFormat, 'it may be said twice');
  const contradiction = { code: 'USAGE', message: /qed and driver sync contradict/ };
  t.throws(() => parseSpec('format=qed,vdev=xvda,target=sync:/d', options), contradiction);
  t.throws(() => parseSpec('format=iscsi,vdev=xvda,target=/d', options), {
    code: 'USAGE',
    hint: /use raw, qcow2, .*qed/,
  });
  t.throws(() => parseSpec('foo:x', options), { code: 'NOT_FOUND', hint: /aio, .*ram, .*sync, .*iscsi, qed/ });
  t.end();
});

t.test('how specs are printed', (t) => {
  for (const [text, printed] of PRINTED) t.equal(printSpec(parseSpec(text)), printed, text);
  t.equal(printXlSpec(parseSpec('/img/d,xvda,w')), 'format=raw, vdev=xvda, access=rw, target=/img/d');
  t.equal(printXlSpec(parseSpec('ram:g.img,xvdb')), 'format=raw, vdev=xvdb, target=ram:g.img');
  t.equal(printXlSpec(parseSpec('d.img,xvdb')), 'format=raw, vdev=xvdb, target=aio:d.img');
  t.end();
});

t.test('parts that no spec can say are not printed', (t) => {
  const spec: DiskSpec = { ...PLAIN, image: '/d', vdev: 'xvda' };
  const unprintable: DiskSpec[] = [
    { ...spec, vdev: null, mode: 'r' },
    { ...spec, vdev: null, image: '/a,b' },
    { ...spec, vdev: null, devtype: 'cdrom' },
    { ...spec, image: null },
    { ...spec, image: '' },
    { ...spec, image: 'a\nb' },
    { ...spec, driver: './driver.js' },
    { ...spec, driver: '' },
    { ...spec, driver: 'ram', below: ['./driver.js'] },
    { ...spec, driver: 'ram', below: ['ram'], image: null },
    { ...spec, script: 'a,b' },
    { ...spec, script: '' },
    { ...spec, script: ' a' },
  ];
  for (const spec of unprintable) t.throws(() => printSpec(spec), { code: 'USAGE', hint: /./ }, JSON.stringify(spec));
  t.throws(() => printXlSpec({ ...spec, vdev: null }), { code: 'USAGE' });
  t.end();
});

const word = fc.string({ unit: fc.constantFrom(...'ab=:, /.-!\u00e9'), minLength: 1, maxLength: 12 });
const path = fc
  .oneof(
    word,
    fc
      .tuple(fc.constantFrom('/', './', 'qcow2:', 'vhd:', 'raw:', 'aio:', 'tar:', 'target=', 'cdrom'), word)
      .map((parts) => parts.join('')),
    fc.string({ unit: 'binary', minLength: 1 }),
  )
  .filter((path) => !/\p{Cc}/u.test(path));
const vdev = fc.oneof(fc.nat(2 ** 31 - 1), fc.integer({ min: 51712, max: 51967 })).map(vdevOfSlot);
const mode = fc.constantFrom(null, 'r' as const, 'w' as const, 'w!' as const);

/** drivers that stack, the top first */
const stack = fc
  .tuple(
    fc.array(fc.constantFrom(...driverNames.filter((name) => factsOf(name)?.takesDisk)), { maxLength: 4 }),
    // what follows nbd is a URI
    fc.constantFrom(...driverNames.filter((name) => !factsOf(name)?.isRemote)),
  )
  .map(([above, bottom]) => {
    const [driver = bottom, ...below] = [...above, bottom];
    return { driver, ...(below.length > 0 && { below }) };
  });

/** any spec that has a form */
const printable = fc
  .record({
    drivers: stack,
    image: path,
    noImage: fc.boolean(),
    vdev,
    mode,
    isCdrom: fc.boolean(),
    script: fc.option(fc.stringMatching(/^[a-z/ =.-]*[a-z]$/).filter((script) => !script.startsWith(' '))),
    discard: fc.option(fc.boolean()),
  })
  .map(({ drivers, image, noImage, vdev, mode, isCdrom, script, discard }): DiskSpec => {
    const isEmpty = noImage && drivers.driver === 'ram' && drivers.below === undefined;
    return {
      ...drivers,
      image: isEmpty ? null : image,
      vdev,
      mode: isCdrom ? 'r' : mode,
      notes: [],
      ...(isCdrom && { devtype: 'cdrom' as const }),
      ...(script !== null && { script }),
      ...(discard !== null && { discard }),
    };
  });

t.test('parse(print(x)) is x', (t) => {
  fc.assert(
    fc.property(printable, (spec) => {
      t.strictSame(withoutNotes(parseSpec(printSpec(spec))), spec);
      t.strictSame(withoutNotes(parseSpec(printXlSpec(spec))), spec);
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(stack, path, (drivers, image) => {
      const spec = { ...PLAIN, ...drivers, image: image.replaceAll(',', ';') };
      t.strictSame(parseSpec(printSpec(spec)), spec);
    }),
  );
  t.end();
});

t.test('print(parse(text)) says the same, and stays as it is', (t) => {
  for (const [text] of PARSED) {
    const spec = parseSpec(text);
    const printed = printSpec(spec);
    t.strictSame(withoutNotes(parseSpec(printed)), withoutNotes(spec), printed);
    t.equal(printSpec(parseSpec(printed)), printed);
  }
  t.end();
});

/** whether a call ends with a result or with one of the errors that the grammar promises, on one line */
function endsWell(call: () => unknown, ...codes: string[]): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (!(error instanceof FusetapError) || !codes.includes(error.code) || !error.hint) return false;
    return !/[\p{Cc}\u2028\u2029]/u.test(error.message + error.hint);
  }
}

const FRAGMENTS = [
  ...[
    'tap:',
    'tap2:',
    'tapdisk:',
    'aio:',
    'ram:',
    'sync:',
    'vhd:',
    'tar:',
    'file:',
    'raw:',
    'qcow2:',
    'foo:',
    'ioemu:',
    ':cdrom',
    ':',
  ],
  ...['target=', 'format=', 'vdev=', 'access=', 'devtype=', 'backendtype=', 'script=', 'foo=', '=', 'cdrom', 'discard'],
  ...[
    'raw',
    'empty',
    'xvda',
    'hdc',
    '51712',
    'r',
    'ro',
    'w',
    'rw',
    'w!',
    '/d',
    'a b',
    ' ',
    '\t',
    '\n',
    '\0',
    ',,',
    'é',
  ],
  ...Array.from({ length: 20 }, () => ','),
];
const anyText = fc.oneof(
  fc.array(fc.constantFrom(...FRAGMENTS), { maxLength: 12 }).map((parts) => parts.join('')),
  fc.string({ unit: 'binary' }),
);

t.test('any text is a spec or a refusal, and what is a spec can be printed', (t) => {
  fc.assert(
    fc.property(anyText, (text) =>
      endsWell(
        () => {
          const spec = parseSpec(text);
          const printed = parseSpec(printSpec(spec));
          if (JSON.stringify(withoutNotes(printed)) !== JSON.stringify(withoutNotes(spec))) throw new Error(text);
        },
        'USAGE',
        'NOT_FOUND',
        'UNSUPPORTED',
      ),
    ),
    { numRuns: 30_000 },
  );
  fc.assert(
    fc.property(anyText, anyText, anyText, (text, vdev, mode) =>
      endsWell(() => parseWords(text, vdev, mode), 'USAGE', 'NOT_FOUND', 'UNSUPPORTED'),
    ),
    { numRuns: 5000 },
  );
  t.end();
});

t.test('long texts are no slower than their length', (t) => {
  const started = process.hrtime.bigint();
  for (const text of ['tap:'.repeat(4000), 'a'.repeat(16_000), `a${' '.repeat(16_000)}b,xvda,w`, ','.repeat(16_000)]) {
    t.ok(endsWell(() => parseSpec(text), 'USAGE', 'NOT_FOUND'));
  }
  for (const piece of ["'\\", '"\\', "'''", "disk = ['", '\\', '[', 'a', "'a',", '\n', '# ']) {
    t.ok(
      endsWell(() => parseDiskList(`disk = [${piece.repeat(1_000_000 / piece.length)}`), 'USAGE'),
      piece,
    );
    t.ok(
      endsWell(() => parseDiskList(piece.repeat(1_000_000 / piece.length)), 'USAGE'),
      piece,
    );
  }
  t.equal(parseDiskList(`disk = [${"'',".repeat(300_000)}]`).length, 300_000);
  t.ok(Number(process.hrtime.bigint() - started) < 60e9, 'a minute is far above what it takes');
  t.end();
});

t.test('the disk list of a configuration file', (t) => {
  const lists: [string, string[]][] = [
    ['', []],
    ['name = "x"\nmemory = 512\n', []],
    ['disk = []', []],
    ["disk = [ 'a,xvda,w' ]", ['a,xvda,w']],
    ['disk=["a,xvda,w","b,xvdb,r"]', ['a,xvda,w', 'b,xvdb,r']],
    [`disk = [\n  'a,xvda,w',  # root\n\t"b,xvdb,r",\n  # 'c,xvdc,r',\n]\n`, ['a,xvda,w', 'b,xvdb,r']],
    [`disk = ['a,xvda,w',\r\n 'b,xvdb,w',]\r\n`, ['a,xvda,w', 'b,xvdb,w']],
    [`disk\t=\t[ '#no, comment', "it's", 'say "x"' ]`, ['#no, comment', "it's", 'say "x"']],
    [String.raw`disk = [ 'it\'s', "a\"b", 'c\\d', 'e\xf' ]`, ["it's", 'a"b', 'c\\d', 'e\\xf']],
    [`disk = [ 'a\\\nb', 'tab\\tline\\n' ]`, ['ab', 'tab\tline\n']],
    [`disk = [ '''a,\nb''', """c""" ]`, ['a,\nb', 'c']],
    [`disk = [ '', "" ]`, ['', '']],
    [`name='x'; disk = [ 'a' ]; vif = [ 'b' ]`, ['a']],
    [`vif = [ 'bridge=xenbr0, disk = [ "no" ]' ]\ndisk = [ 'a' ]`, ['a']],
    [`#disk = [ 'no' ]\n# disk = [ 'no' ]\ndisk = [ 'a' ]`, ['a']],
    [`'''\ndisk = [ 'no' ]\n'''\ndisk = [ 'a' ]`, ['a']],
    [`mydisk = [ 'no' ]\nroot.disk = [ 'no' ]\ndisks = [ 'no' ]\ndisk = [ 'a' ]`, ['a']],
    [`x = disk\nif disk == [ 'no' ]: pass\nf(disk = [ 'no' ])\n`, []],
    [`x = [\n disk = [ 'no' ],\n]\n  disk = [ 'a' ]`, ['a']],
    [`disk = [ 'a' ]\nx = f(\n disk = [ 'no' ]\n)`, ['a']],
    [`disk = [ 'a' ]\ndisk = [ 'b' ]`, ['b']],
    [`disk = [ 'a' ]\ndisk += [ 'b', 'c' ]`, ['a', 'b', 'c']],
    [`extra = "it is open\ndisk = [ 'a' ]`, ['a']],
    [`)]}\ndisk = [ 'a' ]`, ['a']],
    ['disk', []],
    ['disk =='.repeat(3), []],
  ];
  for (const [text, disks] of lists) t.strictSame(parseDiskList(text), disks, JSON.stringify(text));
  t.end();
});

t.test('a disk list that cannot be read', (t) => {
  const refused: [string, RegExp][] = [
    ['disk = [', /line 1: .*does not end/],
    ["\n\ndisk = [ 'a',\n", /line 3: .*does not end/],
    ["disk = [ 'a'\n 'b' ]", /line 2: no comma before ''b''/],
    ["disk = [ 'a',\n , 'b' ]", /line 2: a comma without a disk/],
    ["disk = [\n 'a,\n 'b' ]", /line 2: no quoted disk at/],
    ["disk = [\n 'a\\']", /line 2: no quoted disk at/],
    ["disk = [\n 'a\\", /line 2: no quoted disk at/],
    ['disk = [ root ]', /line 1: no quoted disk at 'root'/],
    ["disk = [ ['a'] ]", /line 1: no quoted disk at '\['/],
    ["disk = [ 'a' % x ]", /line 1: no comma before '%'/],
    ["disk = 'a'", /line 1: disk is not a list/],
    ['disk =', /line 1: disk is not a list/],
    ['disk += x', /line 1: disk is not a list/],
    ['x'.repeat(2 ** 20 + 1), /1048577 characters/],
  ];
  for (const [text, message] of refused) {
    t.throws(() => parseDiskList(text), { code: 'USAGE', message, hint: /./ }, JSON.stringify(text.slice(0, 60)));
  }
  t.end();
});

t.test('any file is a list of strings or a refusal', (t) => {
  const piece = fc.constantFrom(
    ...('disk =[]\'",#\\\n;x+('.match(/./gs) ?? []),
    'disk = [',
    "'a'",
    "'''",
    '+=',
    "disk += ['",
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(piece, { maxLength: 40 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (text) => endsWell(() => parseDiskList(text), 'USAGE')),
    { numRuns: 10_000 },
  );
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary' })), (disks) => {
      const list = disks.map((disk) => `'${disk.replace(/['\\]/g, '\\$&').replaceAll('\n', '\\n')}'`);
      t.strictSame(parseDiskList(`name = 'x'\ndisk = [ ${list.join(',\n')} ] # end\n`), disks);
    }),
  );
  t.end();
});

t.test('every disk of a file parses', (t) => {
  const file = `
    kernel = "/boot/vmlinuz"
    disk = [ 'tap:aio:/var/lib/xen/images/centos53_32hvm.img,xvda,w!',
             "file:/var/lib/xen/images/centos53_32hvm.img,hda,w", # double quotes
             '/dev/loop0,,xvda',
             'format=raw, vdev=xvdb, access=rw, target=/img/a,b', ]
  `;
  const specs = parseDiskList(file).map((text) => printSpec(parseSpec(text)));
  t.strictSame(specs, [
    'aio:/var/lib/xen/images/centos53_32hvm.img,xvda,w!',
    'aio:/var/lib/xen/images/centos53_32hvm.img,hda,w',
    'aio:/dev/loop0,xvda',
    'format=raw, vdev=xvdb, access=rw, target=/img/a,b',
  ]);
  t.end();
});
