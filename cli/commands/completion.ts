/** `fusetap completion`: prints the script that lets a shell ask fusetap for completions (completion/complete.ts). */
import { Argument, type Command } from 'commander';
import { BASH_COMPLETION } from '../completion/bash.js';
import { FISH_COMPLETION } from '../completion/fish.js';
import { ZSH_COMPLETION } from '../completion/zsh.js';
import { endHelp } from '../options.js';

const SCRIPTS = { bash: BASH_COMPLETION, zsh: ZSH_COMPLETION, fish: FISH_COMPLETION };

export function register(program: Command): void {
  const command = program
    .command('completion')
    .summary('print a completion script for a shell')
    .description('Prints a script that lets bash, zsh or fish complete the words of a fusetap command line.')
    .addArgument(new Argument('<SHELL>', 'the shell').choices(Object.keys(SCRIPTS)))
    .action((shell: keyof typeof SCRIPTS) => {
      process.stdout.write(SCRIPTS[shell]);
    });
  endHelp(command, ['source <(fusetap completion bash)', 'fusetap completion fish | source']);
}
