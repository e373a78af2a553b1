#include <stdio.h>
#include <string.h>

#include "orcactl/ctl.h"

/* The scripts only carry words to `orcactl --complete` and its answers back: what can be completed is known in one place. */
static const char bash[] = "# bash completion for orcactl: made by `orcactl completion bash`\n"
                           "_orcactl() {\n"
                           "  local line\n"
                           "  COMPREPLY=()\n"
                           "  while IFS= read -r line; do\n"
                           "    if [[ $line == :files ]]; then\n"
                           "      compopt -o default\n"
                           "    else\n"
                           "      COMPREPLY+=(\"${line%%$'\\t'*}\")\n"
                           "    fi\n"
                           "  done < <(\"$1\" --complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
                           "}\n"
                           "complete -F _orcactl orcactl\n";

static const char zsh[] = "#compdef orcactl\n"
                          "# zsh completion for orcactl: made by `orcactl completion zsh`\n"
                          "_orcactl() {\n"
                          "  local line\n"
                          "  local -a found\n"
                          "  while IFS= read -r line; do\n"
                          "    if [[ $line == :files ]]; then\n"
                          "      _files\n"
                          "    else\n"
                          "      found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\")\n"
                          "    fi\n"
                          "  done < <(\"${words[1]}\" --complete \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
                          "  (( $#found )) && _describe orcactl found\n"
                          "}\n"
                          "if [[ $funcstack[1] == _orcactl ]]; then\n"
                          "  _orcactl \"$@\"\n"
                          "else\n"
                          "  compdef _orcactl orcactl\n"
                          "fi\n";

static const char fish[] = "# fish completion for orcactl: made by `orcactl completion fish`\n"
                           "function __orcactl_complete\n"
                           "    set -l before (commandline -opc)\n"
                           "    set -l word (commandline -ct)\n"
                           "    for line in ($before[1] --complete $before[2..-1] \"$word\" 2>/dev/null)\n"
                           "        if test \"$line\" = :files\n"
                           "            __fish_complete_path \"$word\"\n"
                           "        else\n"
                           "            printf '%s\\n' \"$line\"\n"
                           "        end\n"
                           "    end\n"
                           "end\n"
                           "complete -c orcactl -f -a '(__orcactl_complete)'\n";

int cmd_completion(struct ctl *ctl) {
  const char *shell = ctl->argv[0];
  const char *script = strcmp(shell, "bash") == 0 ? bash : strcmp(shell, "zsh") == 0 ? zsh : strcmp(shell, "fish") == 0 ? fish : NULL;
  if (!script)
    return ctl_usage(ctl, "%s: want bash, zsh or fish", shell);
  fputs(script, stdout);
  return CTL_OK;
}
