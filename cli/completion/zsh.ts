/** Completion for zsh, with its _arguments. */
import type { CompletedCommand, CompletedOption, Words } from './words.js';

/** The script: to be sourced, or put as `_fusetap` in a directory of `$fpath`. */
export function zshCompletion(commands: readonly CompletedCommand[], shared: readonly CompletedOption[]): string {
  const list = commands.map(({ name, description }) => `    ${quote(`${escapeColon(name)}:${description}`)}`);
  return `#compdef fusetap
# fusetap: completion for zsh, made by \`fusetap completion zsh\`
_fusetap_vbds() { local -a words; words=(\${(f)"$(fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $2 }')"}); compadd -a words; _files }
_fusetap_buses() { local -a words; words=(\${(f)"$(fusetap ls -q 2>/dev/null | awk 'NR > 1 { print $1 }' | sort -u)"}); compadd -a words; _files -/ }
_fusetap() {
  local curcontext=$curcontext state line
  local -a commands
  commands=(
${list.join('\n')}
  )
  _arguments -C ${shared.flatMap(printOption).join(' ')} '1:command:->command' '*::word:->word'
  case $state in
    command) _describe command commands ;;
    word)
      case $line[1] in
${commands.map(printCommand).join('\n')}
      esac ;;
  esac
}
if [[ $funcstack[1] == _fusetap ]]; then _fusetap "$@"; else compdef _fusetap fusetap; fi
`;
}

function printCommand({ name, options, arguments: words, isVariadic }: CompletedCommand): string {
  const places = words.map((word, i) => {
    const place = isVariadic && i === words.length - 1 ? '*' : String(i + 1);
    return quote(`${place}:word:${action(word)}`);
  });
  return `        ${name}) _arguments ${[...options.flatMap(printOption), ...places].join(' ')} ;;`;
}

function printOption({ flags, description, value }: CompletedOption): string[] {
  const text = description.replace(/[[\]:]/g, '\\$&');
  return flags.map((flag) => quote(`${flag}[${text}]${value === null ? '' : `:value:${action(value)}`}`));
}

function action({ kind, choices }: Words): string {
  const actions = { file: '_files', directory: '_files -/', vbd: '_fusetap_vbds', bus: '_fusetap_buses', nothing: ' ' };
  return kind === 'choices' ? `(${choices.join(' ')})` : actions[kind];
}

const escapeColon = (text: string): string => text.replaceAll(':', '\\:');

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
