/** Completion for bash. It splits words at `:` and `=`, and replaces only the last part with a completion. */

export const BASH_COMPLETION = `# fusetap: completion for bash, made by \`fusetap completion bash\`
_fusetap() {
  local IFS=$'\\n' answer name front word=\${COMP_WORDS[COMP_CWORD]} i
  mapfile -t answer < <(fusetap __complete --line "\${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
  COMPREPLY=()
  local adds=\${answer[0]} kept=\${answer[1]} rest=\${answer[2]}
  # what stands in the line before the part that bash replaces
  [[ $word == [:=] ]] && word=
  word=\${word//[\\"\\'\\\\\\\\]/}
  front=$kept$rest
  if [[ $front == *"$word" ]]; then front=\${front%"$word"}; else front=; fi
  for name in "\${answer[@]:3}"; do
    name=\${name%%$'\\t'*}
    COMPREPLY+=("\${name#"$front"}")
  done
  case $adds in
    command)
      for ((i = 1; i < COMP_CWORD; i++)); do [[ \${COMP_WORDS[i]} == -- ]] && break; done
      if declare -F _comp_command_offset >/dev/null; then _comp_command_offset $((i + 1))
      elif declare -F _command_offset >/dev/null; then _command_offset $((i + 1))
      elif ((i + 1 == COMP_CWORD)); then COMPREPLY=($(compgen -c -- "$word"))
      else compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word"))
      fi ;;
    files | directories)
      # bash quotes names itself, but it would also quote the colon of \`ram:\`
      local quotes=
      if ((\${#COMPREPLY[@]})); then quotes=1; else compopt -o filenames 2>/dev/null; fi
      for name in $(compgen -\${adds:0:1} -- "$rest"); do
        # bash can only look at a name that stands alone
        if [[ ( $quotes || $kept != "$front" ) && -d $name ]]; then name+=/; fi
        if [[ $quotes ]]; then printf -v name %q "$name"; fi
        name=$kept$name
        COMPREPLY+=("\${name#"$front"}")
      done ;;
  esac
  if ((\${#COMPREPLY[@]} == 1)) && [[ \${COMPREPLY[0]} == *[:=/] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _fusetap fusetap
`;
