/** `fusetap check`: checks an image. */
import { type Command, Option } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import type { CheckedImage } from '../../mount/offline/check-image.js';
import { IMAGE_OR_SPEC_HELP, imageWish } from '../offline/image-wish.js';
import { endHelp, failsWith, type HelpList, type SharedOptions } from '../options.js';
import { humanSize, print, printJson, printNote, reportFailure } from '../output.js';
import { withProgress } from '../progress-bar.js';

/** as those of `qemu-img check`, so that scripts work with both */
const STATUS = { clean: 0, failed: 1, corruptions: 2, leaks: 3, noCheck: 63 } as const;

const EXITS: HelpList = {
  title: 'Exit codes',
  intro: 'as those of qemu-img check:',
  rows: [
    [`${STATUS.clean}`, 'no fault was found'],
    [`${STATUS.failed}`, 'the image could not be checked, or wrong arguments; --json has the code'],
    [`${STATUS.corruptions}`, 'the image is corrupt'],
    [`${STATUS.leaks}`, 'there are leaked clusters, and no other fault'],
    [`${STATUS.noCheck}`, 'the format has no check'],
  ],
};

type CheckWords = SharedOptions & { repair?: 'leaks' };

export function register(program: Command): void {
  const command = failsWith(program.command('check'), STATUS.failed)
    .summary('check an image for faults')
    .description(
      'Checks the tables of an image, as qemu-img check does: whether its refcounts agree with what refers to each ' +
        'cluster. An image that is in use for writing is refused. Changes nothing without --repair.',
    )
    .argument('<IMAGE|SPEC>', IMAGE_OR_SPEC_HELP)
    .addOption(
      new Option(
        '--repair <WHAT>',
        'leaks: free clusters that nobody uses, if nothing else is wrong; finish what a crash left behind',
      ).choices(['leaks']),
    )
    .action(async (text: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<CheckWords>();
      try {
        process.exitCode = await check(text, options);
      } catch (error) {
        reportFailure(error, options);
        process.exitCode = await statusOf(error);
      }
    });
  endHelp(command, ['fusetap check disk.qcow2', 'fusetap check --repair leaks disk.qcow2'], { exits: EXITS });
}

/** @returns the exit status */
async function check(text: string, options: CheckWords): Promise<number> {
  const { checkImageFile } = await import('../../mount/offline/check-image.js');
  const wish = imageWish(text);
  const checked = await withProgress('checking', options, (progress) =>
    checkImageFile(wish, { repairsLeaks: options.repair === 'leaks', ...defined({ progress }) }),
  );
  for (const note of checked.notes) printNote(note);
  if (options.json) printJson(documentOf(checked));
  else printChecked(checked);
  const { corruptionCount, leaks } = checked.result;
  if (corruptionCount > 0) return STATUS.corruptions;
  return leaks.clusters > 0 ? STATUS.leaks : STATUS.clean;
}

async function statusOf(error: unknown): Promise<number> {
  const { NO_CHECK } = await import('../../mount/offline/check-image.js');
  return error instanceof FusetapError && error.operation === NO_CHECK ? STATUS.noCheck : STATUS.failed;
}

function documentOf({ image, format, result, freedClusters }: CheckedImage) {
  const { isDirty, isMarkedCorrupt, ...others } = result;
  return { image, format, ...others, dirty: isDirty, markedCorrupt: isMarkedCorrupt, freedClusters };
}

function printChecked({ result, freedClusters }: CheckedImage): void {
  const { corruptions, corruptionCount, leaks, clusters, imageEnd } = result;
  for (const line of corruptions) print(`corrupt: ${line}`);
  if (corruptionCount > corruptions.length) print(`corrupt: and ${corruptionCount - corruptions.length} more`);
  for (const { offset, length } of leaks.ranges) print(`leaked: ${length} bytes at byte ${offset}`);
  if (freedClusters > 0) print(`${counted(freedClusters, 'leaked cluster')} freed`);
  print(verdictOf(result));
  for (const remark of remarksOn(result)) print(remark);
  const { allocated, total, fragmented, compressed } = clusters;
  const share = (count: number, of: number): string => `${((100 * count) / Math.max(of, 1)).toFixed(1)} %`;
  print(
    `${allocated} of ${total} clusters are allocated (${share(allocated, total)}), ${share(fragmented, allocated)} of them ` +
      `fragmented, ${share(compressed, allocated)} compressed; the image ends at byte ${imageEnd}`,
  );
}

function verdictOf({ corruptionCount, leaks }: CheckedImage['result']): string {
  if (corruptionCount === 0 && leaks.clusters === 0) return 'no fault was found';
  const corrupt = corruptionCount === 0 ? [] : [counted(corruptionCount, 'corruption')];
  const leaked =
    leaks.clusters === 0 ? [] : [`${counted(leaks.clusters, 'leaked cluster')} (${humanSize(leaks.bytes)})`];
  return [...corrupt, ...leaked].join(', ');
}

function remarksOn({ isDirty, isMarkedCorrupt, beyondEnd }: CheckedImage['result']): string[] {
  return [
    ...(isDirty ? ['the image was not closed cleanly: the next attach with mode w repairs it'] : []),
    ...(isMarkedCorrupt ? ['the image is marked as corrupt'] : []),
    ...(beyondEnd > 0 ? [`${counted(beyondEnd, 'data cluster')} behind the end of the file: they read as zeros`] : []),
  ];
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
