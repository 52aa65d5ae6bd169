import t from 'tap';
import {
  DeathEvidence,
  isKilledByOthers,
  pauseBeforeTryMs,
} from '../../../../mount/keeper/supervision/death-evidence.js';
import { readMemoryKills } from '../../../../system/proc.js';

const START_LIMIT_MS = 60_000;

/** Servers that start and die one after the other. */
class Servers {
  readonly #evidence = new DeathEvidence(START_LIMIT_MS);
  nowMs = 1_000;
  answered = 0;

  die(after: { ms?: number; answers?: number; inFlight?: number[]; wasKilled?: boolean } = {}): string | null {
    this.#evidence.began({ nowMs: this.nowMs, answered: this.answered });
    this.nowMs += after.ms ?? 1;
    this.answered += after.answers ?? 0;
    const { inFlight = [], wasKilled = false } = after;
    return this.#evidence.died({ nowMs: this.nowMs, answered: this.answered, inFlight, wasKilled });
  }

  get pauseMs(): number {
    return this.#evidence.pauseMs;
  }
}

const times = (count: number, die: (i: number) => string | null): (string | null)[] =>
  Array.from({ length: count }, (_, i) => die(i));

t.test('five servers that die at work without an answer end the bus', async (t) => {
  const servers = new Servers();
  const reasons = times(5, (i) => servers.die({ inFlight: [i] }));
  t.same(reasons.slice(0, 4), [null, null, null, null]);
  t.equal(reasons[4], '5 servers in a row died before they answered a request');
});

t.test('an answer in between, or a longer life, resets the count', async (t) => {
  for (const ofUse of [{ answers: 1 }, { ms: 10_001 }]) {
    const servers = new Servers();
    for (let round = 0; round < 3; round++) {
      t.same(
        times(4, (i) => servers.die({ inFlight: [100 * round + i] })),
        [null, null, null, null],
      );
      t.equal(servers.die({ ...ofUse, inFlight: [100 * round + 50] }), null);
    }
  }
});

t.test('five servers that die on one request end the bus, whatever else they answered', async (t) => {
  const servers = new Servers();
  const reasons = times(5, (i) => servers.die({ answers: 10, inFlight: [7, 100 + i] }));
  t.equal(reasons[4], '5 servers died while they worked on the same request');
  t.same(reasons.slice(0, 4), [null, null, null, null]);
  const others = new Servers();
  t.same(
    times(9, (i) => others.die({ answers: 10, inFlight: i === 4 ? [] : [7] })),
    [null, null, null, null, null, null, null, null, null],
    'a request that was not under way at one of the deaths starts from zero',
  );
});

t.test('servers that others kill are no evidence against a request', async (t) => {
  const servers = new Servers();
  const answered = times(50, () => servers.die({ answers: 10, inFlight: [7], wasKilled: true }));
  t.same(new Set(answered), new Set([null]), 'with the same request in progress');
  const useless = times(50, () => servers.die({ inFlight: [7], wasKilled: true }));
  t.same(new Set(useless), new Set([null]), 'without an answer');
  const long = times(10, () => servers.die({ ms: 9_000, inFlight: [7], wasKilled: true }));
  t.match(long.at(-1), /^for \d+ s every server died/, 'but not for ever');
});

t.test('a kill by others does not make a request innocent', async (t) => {
  const servers = new Servers();
  const crash = () => servers.die({ answers: 10, inFlight: [7] });
  t.same(times(4, crash), [null, null, null, null]);
  t.equal(servers.die({ answers: 10, wasKilled: true }), null);
  t.equal(crash(), '5 servers died while they worked on the same request');
});

t.test('who has killed a server', async (t) => {
  const killed = {
    how: 'signal SIGKILL',
    byKeeper: false,
    hasLastWords: false,
    memoryKills: { before: 3, after: 3 },
  };
  t.ok(isKilledByOthers(killed));
  t.notOk(isKilledByOthers({ ...killed, byKeeper: true }), 'the keeper');
  t.notOk(isKilledByOthers({ ...killed, hasLastWords: true }), 'the server itself');
  t.notOk(isKilledByOthers({ ...killed, memoryKills: { before: 3, after: 4 } }), 'the kernel, for memory');
  t.notOk(isKilledByOthers({ ...killed, memoryKills: { before: null, after: null } }), 'not known');
  t.notOk(isKilledByOthers({ ...killed, how: 'signal SIGSEGV' }));
  t.notOk(isKilledByOthers({ ...killed, how: 'exit status 1' }));
  t.type(readMemoryKills(), 'number', 'Linux tells it');
});

t.test('servers that die idle end the bus only after the time limit', async (t) => {
  const servers = new Servers();
  for (const [count, ms] of [
    [5, 1],
    [40, 1_000],
  ] as const) {
    t.same(
      times(count, () => servers.die({ ms })).filter((reason) => reason !== null),
      [],
    );
  }
  const last = times(30, () => servers.die({ ms: 1_000 })).find((reason) => reason !== null);
  t.match(last, /^for 60 s every server died before it read a request$/);
});

t.test('pauses between servers that die idle grow', async (t) => {
  const servers = new Servers();
  t.equal(servers.pauseMs, 0);
  const pauses = times(12, () => {
    servers.die();
    return String(servers.pauseMs);
  }).map(Number);
  t.equal(pauses[0], 0, 'no pause after the first death');
  t.same(
    pauses,
    [...pauses].sort((a, b) => a - b),
  );
  t.equal(pauses.at(-1), 5_000);
  servers.die({ answers: 1 });
  t.equal(servers.pauseMs, 0);
  t.same([0, 1, 2, 99].map(pauseBeforeTryMs), [10, 20, 40, 5_000]);
});
