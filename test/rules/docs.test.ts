/** docs/coherence.md shows a session: its commands, run one after another, print what stands there. */
import t from 'tap';
import { playSession, readPage, readSteps } from '../docs/session.js';
import { onDefaultTransport, openBench } from '../e2e/fixtures.js';

const SIZE = 8 << 20;

t.test('the examples of docs/coherence.md', (t) => {
  onDefaultTransport(t, ['losetup', 'qemu-io', 'bash'], async (t, transport) => {
    const bench = await openBench(t, transport);
    await bench.image('disk.img', SIZE);
    const steps = readSteps(readPage('docs/coherence.md'));
    t.ok(steps.length >= 30, `${steps.length} commands`);
    await playSession(t, bench, steps);
    t.same(await bench.traces(), [], 'the session leaves nothing');
  });
  t.end();
});
