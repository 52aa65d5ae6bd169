/** Images with file systems, for tests that mount them. */
import type { Bench } from './fixtures.js';

/** The programs that make them. */
export const MAKERS = ['losetup', 'mkfs.ext4', 'sfdisk', 'blkid'] as const;

/** An image with an ext4. */
export async function ext4(bench: Bench, name: string, label = ''): Promise<string> {
  const path = await bench.image(name, 8 << 20);
  await bench.sh('mkfs.ext4 -q -F -O ^has_journal -L "$2" "$1"', path, label);
  return path;
}

/**
 * An image like that of a Raspberry Pi: partition 1 has the label `boot`, 2 has `rootfs`. In the GPT they are called
 * `first` and `second`. They begin at 1 MiB and at 9 MiB, and have 8 MiB each.
 */
export async function twoPartitions(bench: Bench, name: string): Promise<string> {
  const path = await bench.image(name, 18 << 20);
  const table = 'label: gpt\nstart=2048,size=16384,name=first\nstart=18432,size=16384,name=second';
  await ext4(bench, 'part1', 'boot');
  await ext4(bench, 'part2', 'rootfs');
  await bench.sh(
    'printf "$2\n" | sfdisk -q "$1"; for n in 1 2; do ' +
      'dd if=part$n of="$1" bs=1M seek=$((8 * n - 7)) conv=notrunc,sparse status=none; rm part$n; done',
    path,
    table,
  );
  return path;
}
