/** Completion for zsh. */

export const ZSH_COMPLETION = `#compdef fusetap
# fusetap: completion for zsh, made by \`fusetap completion zsh\`
_fusetap() {
  local -a answer offered shown open opened
  local line name
  integer width=0
  answer=("\${(@f)$(fusetap __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}")
  for line in "\${(@)answer[4,-1]}"; do
    name=\${line%%$'\\t'*}
    ((width < $#name)) && width=$#name
  done
  for line in "\${(@)answer[4,-1]}"; do
    [[ -n $line ]] || continue
    name=\${line%%$'\\t'*}
    line="\${(r:width:)name}  \${line#*$'\\t'}"
    if [[ $name == *[:=] ]]; then
      open+=("$name")
      opened+=("$line")
    else
      offered+=("$name")
      shown+=("$line")
    fi
  done
  if [[ $answer[1] == command ]]; then
    words=("\${(@)words[answer[2] + 2,-1]}")
    ((CURRENT -= answer[2] + 1))
    _normal
    return
  fi
  (($#offered)) && compadd -l -d shown -a offered
  (($#open)) && compadd -S '' -l -d opened -a open
  case $answer[1] in
    files) compset -p \${#answer[2]}; _files ;;
    directories) compset -p \${#answer[2]}; _files -/ ;;
  esac
}
if [[ $funcstack[1] == _fusetap ]]; then _fusetap "$@"; else compdef _fusetap fusetap; fi
`;
