/** Completion for fish: source it, or write it to ~/.config/fish/completions/fusetap.fish. */

export const FISH_COMPLETION = `# fusetap: completion for fish, made by \`fusetap completion fish\`
function __fusetap_complete
    set -l before (commandline -opc)
    set -e before[1]
    set -l word (commandline -ct)
    set -l answer (fusetap __complete -- $before "$word" 2>/dev/null)
    for line in $answer[4..]
        echo $line
    end
    switch "$answer[1]"
        case command
            set -l other (string escape -- $before[(math $answer[2] + 1)..])
            complete -C (string join ' ' -- $other "$word")
        case files
            for name in (__fish_complete_path "$answer[3]")
                echo "$answer[2]$name"
            end
        case directories
            for name in (__fish_complete_directories "$answer[3]" '')
                echo "$answer[2]$name"
            end
    end
end
complete -c fusetap -f -a '(__fusetap_complete)'
`;
