/** Counts the pages of a file that wait to be written to its disk. */
import { runCommand } from '../../bench/command.js';

/** cachestat(2), Linux 6.5; the number is the same on every architecture */
const SCRIPT = String.raw`
open(my $f, '<', $ARGV[0]) or die "$!\n";
my ($range, $counts) = (pack('QQ', 0, 0), "\0" x 40);
syscall(451, fileno($f), $range, $counts, 0) == 0 or die "cachestat: $!\n";
my ($cached, $dirty, $writeback) = unpack('QQQ', $counts);
print $dirty + $writeback;
`;

/** @throws Error if the kernel does not support it */
export async function unwrittenPages(file: string): Promise<number> {
  return Number(await runCommand('perl', ['-e', SCRIPT, file]));
}
