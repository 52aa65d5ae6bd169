/**
 * The life of a vbd, as short as it can be: attach, write, read, a killed server, an upgrade, detach. It runs on every
 * version of Node that is tested, on both transports, so it also shows that their native code loads.
 */
import t from 'tap';
import { forEachTransport, openBench } from './fixtures.js';
import { replaceServer } from './kill-server.js';

t.setTimeout(240_000);

t.test(`Node ${process.versions.node}`, (t) => {
  forEachTransport(t, ['dd', 'cmp'], async (t, transport) => {
    const bench = await openBench(t, transport);
    const size = 1 << 20;
    await bench.image('disk.img', size);
    await bench.image('pattern', size, size);
    await bench.begin();
    for (const spec of ['aio:disk.img', 'ram:pattern']) {
      const vbd = await bench.attach(spec);
      await bench.sh('dd if=pattern of="$1" bs=64k conv=notrunc status=none', vbd);
      await bench.sh('cmp pattern "$1"', vbd);
    }
    if (transport.abilities.restart) {
      await replaceServer(bench);
      await bench.succeed(['upgrade']);
    }
    for (const vbd of ['xvda', 'xvdb']) await bench.sh('cmp pattern "$1"', `${bench.runtimeDir}/bus/0/${vbd}`);
    await bench.detach('xvda', 'xvdb');
    await bench.sh('cmp pattern disk.img');
    await bench.succeed(['stop']);
    t.same(await bench.traces(), [], 'nothing is left');
  });
  t.end();
});
