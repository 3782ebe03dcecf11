//! `completion`.

use super::super::args;
use super::super::render::out;
use super::{Exit, Settings, Verb};

/// Print the completion script of a shell
///
/// For bash: `source <(hoist completion bash)`. It completes commands and flags, and in bash also the names
/// of services, projects and profiles.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

impl Verb for Args {
    fn run(self, _settings: Settings) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::root("hoist"), "hoist", &mut script);
        if self.shell == clap_complete::Shell::Bash {
            script.extend_from_slice(BASH_NAMES.as_bytes());
        }
        out::write(&script)?;
        Ok(Exit::Success)
    }
}

/// Goes on where the generated function ends: names that only the project knows.
const BASH_NAMES: &str = r#"
_hoist_names() {
    _hoist "$@"
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= names= i
    local -a given=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -f|--file|-p|--project-name|--project-directory|--env-file|--profile|--engine)
                ((i + 1 < COMP_CWORD)) && given+=("${COMP_WORDS[i]}" "${COMP_WORDS[i+1]}")
                ((i++)) ;;
            -*) ;;
            *) verb=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $prev in
        -p|--project-name) names=$(hoist ls -aq 2>/dev/null) ;;
        --profile) names=$(hoist "${given[@]}" config --profiles 2>/dev/null) ;;
        *)
            [[ $cur == -* ]] && return
            case $verb in
                attach|build|config|cp|create|down|events|exec|export|images|kill|logs|pause|plan|port|ps|pull|push|restart|rm|run|scale|start|stats|stop|top|unpause|up|volumes|wait|watch)
                    names=$(hoist "${given[@]}" config --services 2>/dev/null) ;;
            esac ;;
    esac
    [[ -n $names ]] && COMPREPLY=($(compgen -W "$names" -- "$cur"))
    return 0
}
complete -F _hoist_names -o bashdefault -o default hoist
"#;
