/** Completion for fish. */
import type { CompletedCommand, CompletedOption, Words } from './words.js';

/** The script: to be sourced, or put in ~/.config/fish/completions/fusetap.fish. */
export function fishCompletion(commands: readonly CompletedCommand[], shared: readonly CompletedOption[]): string {
  const lines = [
    '# fusetap: completion for fish, made by `fusetap completion fish`',
    "function __fusetap_vbds; fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $2 }'; end",
    "function __fusetap_buses; fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $1 }' | sort -u; end",
    'complete -c fusetap -f',
    ...shared.map((option) => printOption('', option)),
    ...commands.flatMap(printCommand),
  ];
  return `${lines.join('\n')}\n`;
}

function printCommand({ name, description, options, arguments: words }: CompletedCommand): string[] {
  const inside = `-n '__fish_seen_subcommand_from ${name}'`;
  return [
    `complete -c fusetap -n __fish_use_subcommand -a ${name} -d ${quote(description)}`,
    ...options.map((option) => printOption(` ${inside}`, option)),
    ...new Set(words.flatMap((word) => printWords(word).map((given) => `complete -c fusetap ${inside} ${given}`))),
  ];
}

function printOption(condition: string, { flags, description, value }: CompletedOption): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  const given = value === null ? '' : ` -r ${printWords(value).join(' ')}`;
  return `complete -c fusetap${condition} ${names.join(' ')} -d ${quote(description)}${given}`.trimEnd();
}

function printWords({ kind, choices }: Words): string[] {
  switch (kind) {
    case 'file':
      return ['-F'];
    case 'directory':
      return ["-a '(__fish_complete_directories)'"];
    case 'vbd':
      return ["-a '(__fusetap_vbds)'", '-F'];
    case 'bus':
      return ["-a '(__fusetap_buses)'"];
    case 'choices':
      return [`-a '${choices.join(' ')}'`];
    case 'nothing':
      return [];
  }
}

function quote(text: string): string {
  return `'${text.replace(/['\\]/g, '\\$&')}'`;
}
