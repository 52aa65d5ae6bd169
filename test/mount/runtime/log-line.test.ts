import fc from 'fast-check';
import t from 'tap';
import { type BusEvent, describeRecord, parseLine, printLine } from '../../../mount/runtime/log-line.js';

const TIME = new Date('2026-01-31T12:00:00.000Z');

t.test('a line is JSON, and reads well', async (t) => {
  const event: BusEvent = {
    ...{ event: 'attached', vdev: 'xvda', driver: 'aio', image: '/img/a b.img', mode: 'w!', size: 1048576 },
  };
  const line = printLine(TIME, event);
  t.same(JSON.parse(line), { time: TIME.toISOString(), ...event });
  t.match(line, /^{"time":"2026-01-31T12:00:00.000Z","event":"attached",/, 'the keys in the order of interest');
  t.equal(
    describeRecord(parseLine(line)),
    '2026-01-31T12:00:00.000Z attached vdev=xvda driver=aio image="/img/a b.img" mode="w!" size=1048576',
  );
});

t.test('whatever an event holds, its line parses back', async (t) => {
  const image = fc.oneof(
    fc.constant(null),
    fc.constantFrom('null', 'true', '12', '', '/a', '-', 'a=b c="d"'),
    fc.string({ unit: 'binary' }),
    fc.string({ unit: 'grapheme' }),
  );
  fc.assert(
    fc.property(image, fc.integer(), (image, size) => {
      const event: BusEvent = { event: 'attached', vdev: 'xvda', driver: 'aio', image, mode: 'w', size };
      const line = printLine(TIME, event);
      t.notMatch(line, /[\p{Cc}\p{Zl}\p{Zp}]/u, 'one line, and nothing that a terminal obeys');
      t.same(parseLine(line), { time: TIME.toISOString(), ...event });
    }),
  );
});

t.test('all else is output, never an error', async (t) => {
  const old = '2026-01-31T12:00:00.000Z attached vdev=xvda image="/img/a b.img"';
  const lines = [
    '',
    'Error: EIO',
    '    at Server.attach (server.js:1:2)',
    '{"time":"x"',
    '{"time":1}',
    'null',
    '[]',
    old,
  ];
  for (const line of lines) {
    const record = parseLine(line);
    t.same(record, { time: null, event: 'output', text: line });
    t.equal(describeRecord(record), line, 'shown as it stands there');
  }
  fc.assert(fc.property(fc.string(), (text) => parseLine(text).event.length > 0));
});
