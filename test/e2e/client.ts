/**
 * A process that has a file open and does with it, call by call, what it is told. In Perl, which is on every Debian, and
 * which can do a system call that has no function.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';
import { collect, type Outcome } from './command.js';
import type { Bench } from './fixtures.js';

/** How the file is opened; `path` is O_PATH, `map` is for reading, mapped (private), and then closed. */
export type Way = 'read' | 'write' | 'path' | 'map' | 'direct' | 'append' | 'dsync' | 'truncate';

const SCRIPT = String.raw`
use strict;
use Fcntl;
use POSIX ();
my ($way, $file) = @ARGV;
my %flags = (
  read => O_RDONLY, write => O_RDWR, path => 010000000, map => O_RDONLY, direct => O_RDWR | O_DIRECT,
  append => O_RDWR | O_APPEND, dsync => O_RDWR | O_DSYNC, truncate => O_RDWR | O_TRUNC,
);
my %mmap = (x86_64 => 9, aarch64 => 222);
$| = 1;
sysopen(my $f, $file, $flags{$way}) or answer(0, ""), exit 1;
if ($way eq 'map') {
  map_it(4096, 2) or answer(0, ""), exit 1;
  close $f;
}
answer(1, "ready");
my %calls = (
  # reads and writes at an offset: how many bytes
  read => sub { my $b; sysseek($f, $_[0], 0); my $n = sysread($f, $b, $_[1]); answer(defined $n, $n) },
  # the text that stands there
  text => sub { my $b; sysseek($f, $_[0], 0); answer(defined sysread($f, $b, $_[1]), $b) },
  write => sub { sysseek($f, $_[0], 0); my $n = syswrite($f, ($_[2] // "x") x $_[1]); answer(defined $n, $n) },
  # where the descriptor stands: 3 and 4 are SEEK_DATA and SEEK_HOLE
  seek => sub { my $at = sysseek($f, $_[0], $_[1]); answer(defined $at, $at + 0) },
  truncate => sub { answer(truncate($f, $_[0]), "ok") },
  fsync => sub { answer($f->sync, "ok") },
  close => sub { answer(close($f), "ok") },
  # maps the first bytes, shared (1) or private (2): they, in hexadecimal
  mmap => sub { my $at = map_it(4096, $_[0]); answer($at, $at && unpack("H*", unpack("P4", pack("J", $at)))) },
);
while (my $line = <STDIN>) {
  my ($call, @words) = split ' ', $line;
  $calls{$call}->(@words);
}
sub answer { print $_[0] ? "$_[1]\n" : "$!\n" }
sub map_it {
  my $at = syscall($mmap{(POSIX::uname())[4]}, 0, $_[0], 1, $_[1] + 0, fileno($f), 0);
  return $at == -1 ? 0 : $at;
}
`;

/** Why files cannot be mapped on this machine; false where they can. */
export const cannotMap = ['x64', 'arm64'].includes(process.arch) ? false : 'the number of mmap(2) is not known here';

/** for as long as a test may hold a file, while servers are killed on a slow machine */
const HELD_LIMIT_MS = 600_000;

export class Client {
  readonly #child: ChildProcess;
  readonly #end: Promise<Outcome>;
  #said = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#end = collect(child);
    child.stdout?.on('data', (text: string) => {
      this.#said += text;
      child.emit('said');
    });
    this.#end.finally(() => child.emit('said')).catch(() => {});
  }

  /** Opens the file, and holds it until it is released, at the latest after the test. @throws where it is not opened */
  static async open(t: Test, bench: Bench, way: Way, path: string): Promise<Client> {
    // its stdin ends it before; a call that hangs has a limit of its own
    const words = ['-MIO::Handle', '-e', SCRIPT, way, path];
    const client = new Client(bench.startProgram('perl', words, { timeoutMs: HELD_LIMIT_MS }));
    t.teardown(() => client.release());
    const answer = await client.#line();
    if (answer !== 'ready') throw new Error(answer);
    return client;
  }

  /** What opening the file so comes to: `ready`, or the text of the error. */
  static async tryOpen(t: Test, bench: Bench, way: Way, path: string): Promise<string> {
    try {
      await (await Client.open(t, bench, way, path)).release();
      return 'ready';
    } catch (error) {
      return (error as Error).message;
    }
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Does one call, as `read 0 4096`. @returns its result, or the text of the error */
  call(...words: (string | number)[]): Promise<string> {
    this.#child.stdin?.write(`${words.join(' ')}\n`);
    return this.#line();
  }

  /** Lets go, by ending. */
  async release(): Promise<void> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5_000);
    await this.#end;
    clearTimeout(timer);
  }

  async #line(): Promise<string> {
    const signal = AbortSignal.timeout(20_000);
    while (!this.#said.includes('\n')) {
      const { exitCode, signalCode } = this.#child;
      if (exitCode !== null || signalCode !== null) return `ended: ${(await this.#end).stderr}`;
      await once(this.#child, 'said', { signal });
    }
    const end = this.#said.indexOf('\n');
    const line = this.#said.slice(0, end);
    this.#said = this.#said.slice(end + 1);
    return line;
  }
}
