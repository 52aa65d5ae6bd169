/** Completion for bash. Options that take a value are told from those that do not, so that the words count right. */
import type { CompletedCommand, CompletedOption, Words } from './words.js';

const HEAD = `# fusetap: completion for bash, made by \`fusetap completion bash\`
_fusetap_vbds() { fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $2 }'; }
_fusetap_buses() { fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $1 }' | sort -u; }
# KIND CHOICES: completes the current word; a name with a blank in it is one
_fusetap_words() {
  local IFS=$'\\n'
  case $1 in
    file) COMPREPLY=($(compgen -f -- "$cur")) ;;
    directory) COMPREPLY=($(compgen -d -- "$cur")) ;;
    vbd) COMPREPLY=($(compgen -W "$(_fusetap_vbds)" -- "$cur") $(compgen -f -- "$cur")) ;;
    bus) COMPREPLY=($(compgen -W "$(_fusetap_buses)" -- "$cur") $(compgen -d -- "$cur")) ;;
    choices) COMPREPLY=($(IFS=' ' && compgen -W "$2" -- "$cur")) ;;
  esac
}
`;

/** The script. */
export function bashCompletion(commands: readonly CompletedCommand[], shared: readonly CompletedOption[]): string {
  const names = commands.map(({ name }) => name).join(' ');
  return `${HEAD}_fusetap() {
  local IFS=$' \\t\\n' cur=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} command= count=0 i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
      ${withValue(commands, shared)}) ((i++)) ;;
      -*) ;;
      *) if [[ $command ]]; then ((count++)); else command=\${COMP_WORDS[i]}; fi ;;
    esac
  done
  case $command:$before in
${[...commands.flatMap(valueCases), ...shared.flatMap((option) => valueCase('*', option))].join('\n')}
  esac
  if [[ ! $command ]]; then
    COMPREPLY=($(compgen -W "${names} ${flagsOf(shared)}" -- "$cur"))
    return
  fi
  case $command:$cur in
${commands.map(({ name, options }) => `    ${name}:-*) COMPREPLY=($(compgen -W "${flagsOf(options)}" -- "$cur")); return ;;`).join('\n')}
  esac
  case $command:$count in
${commands.flatMap(argumentCases).join('\n')}
  esac
}
complete -o filenames -F _fusetap fusetap
`;
}

function withValue(commands: readonly CompletedCommand[], shared: readonly CompletedOption[]): string {
  const options = [...shared, ...commands.flatMap((command) => command.options)];
  return [...new Set(options.filter(({ value }) => value !== null).flatMap(({ flags }) => flags))].join(' | ');
}

function valueCases(command: CompletedCommand): string[] {
  return command.options.flatMap((option) => valueCase(command.name, option));
}

function valueCase(command: string, { flags, value }: CompletedOption): string[] {
  if (value === null) return [];
  const patterns = flags.map((flag) => `${command}:${flag}`).join(' | ');
  return [`    ${patterns}) ${complete(value)}; return ;;`];
}

function argumentCases({ name, arguments: words, isVariadic }: CompletedCommand): string[] {
  return words.map((word, i) => {
    const isRepeated = isVariadic && i === words.length - 1;
    return `    ${name}:${isRepeated ? '*' : i}) ${complete(word)} ;;`;
  });
}

function complete({ kind, choices }: Words): string {
  return `_fusetap_words ${kind}${choices.length > 0 ? ` '${choices.join(' ')}'` : ''}`;
}

function flagsOf(options: readonly CompletedOption[]): string {
  return options.flatMap(({ flags }) => flags).join(' ');
}
