/**
 * A process that holds a file in one of the ways that a file can be held, and tells what happens when it uses it. In
 * Perl, which is on every Debian, and which can do a system call that has no function.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';
import { collect, type Outcome, start } from './command.js';
import type { Bench } from './fixtures.js';

/** open for reading or writing; opened as a path only (O_PATH); mapped (private) with the descriptor closed */
export type Hold = 'read' | 'write' | 'path' | 'map';

const SCRIPT = String.raw`
use strict;
use Fcntl;
use POSIX ();
my ($how, $file) = @ARGV;
my %flags = (read => O_RDONLY, write => O_RDWR, path => 010000000, map => O_RDONLY);
my %mmap = (x86_64 => 9, aarch64 => 222);
$| = 1;
sysopen(my $f, $file, $flags{$how}) or fail("open");
if ($how eq 'map') {
  my $at = syscall($mmap{(POSIX::uname())[4]}, 0, 4096, 1, 2, fileno($f), 0);
  fail("mmap") if $at == -1;
  close $f;
}
print "ready\n";
while (my $word = <STDIN>) {
  chomp $word;
  my $bytes = "x" x 4096;
  sysseek($f, 0, 0);
  my $n = $word eq 'read' ? sysread($f, $bytes, 4096) : $word eq 'write' ? syswrite($f, $bytes) : close($f);
  print defined $n && $n ne '' ? "$n\n" : "$!\n";
}
sub fail { print "$_[0]: $!\n"; exit 1 }
`;

/** Why a way to hold a file cannot be tried on this machine; false where it can. */
export function cannotHold(how: Hold): string | false {
  return how === 'map' && !['x64', 'arm64'].includes(process.arch) ? 'the number of mmap(2) is not known here' : false;
}

export class Holder {
  readonly #child: ChildProcess;
  readonly #end: Promise<Outcome>;
  #said = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
      child.emit('said');
    });
    this.#end = collect(child);
  }

  /** Starts to hold the file; ended after the test. */
  static async hold(t: Test, bench: Bench, how: Hold, path: string): Promise<Holder> {
    const holder = new Holder(start('perl', ['-e', SCRIPT, how, path], bench.options()));
    t.teardown(() => holder.release());
    const answer = await holder.#line();
    if (answer !== 'ready') throw new Error(`cannot hold ${path} (${how}): ${answer}`);
    return holder;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Uses the descriptor at offset 0. @returns how many bytes, or the text of the error */
  async use(word: 'read' | 'write' | 'close'): Promise<string> {
    this.#child.stdin?.write(`${word}\n`);
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
    const signal = AbortSignal.timeout(15_000);
    while (!this.#said.includes('\n')) {
      if (this.#child.exitCode !== null) return `ended with ${this.#child.exitCode}`;
      await once(this.#child, 'said', { signal });
    }
    const end = this.#said.indexOf('\n');
    const line = this.#said.slice(0, end);
    this.#said = this.#said.slice(end + 1);
    return line;
  }
}
