/** `fusetap doctor`: checks what works here, what does not, and how to fix it. */
import type { Command } from 'commander';
import { EXIT_CODES } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import { type CheckResult, examine } from '../../mount/doctor/index.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('doctor')
    .summary('check what works here, and how to fix what does not')
    .description(
      'Checks this machine for the calling user: what works (+), what is missing (-), and what every bus ' +
        'needs but is missing (!). Changes nothing. Exits with 0 if images can be attached, even if ' +
        'something else is missing, else with 6.',
    )
    .action(async (_: unknown, self: Command) => {
      const { ok, checks } = await examine(process.env, process.geteuid?.() ?? 0);
      if (self.optsWithGlobals<SharedOptions>().json) {
        printJson({ ok, checks: checks.map(({ name, ok, detail, hint }) => ({ name, ok, detail, hint })) });
      } else {
        for (const check of checks) printCheck(check);
        print(ok ? 'images can be attached here' : 'images cannot be attached here');
      }
      process.exitCode = ok ? 0 : EXIT_CODES.UNSUPPORTED;
    });
  endHelp(command, ['fusetap doctor', "fusetap doctor --json | jq -r '.checks[] | select(.ok | not) | .hint'"]);
}

const NAME_WIDTH = 18;

function printCheck({ name, ok, needed, detail, hint }: CheckResult): void {
  const mark = ok ? '+' : needed ? '!' : '-';
  print(escapeControls(`${mark} ${name.padEnd(NAME_WIDTH)} ${detail}`));
  if (hint !== null) print(escapeControls(`  ${''.padEnd(NAME_WIDTH)} → ${hint}`));
}
