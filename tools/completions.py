"""Completion for bash, zsh and fish from the parsers of the arguments."""

from __future__ import annotations

from commands import Argument, Command

DEVICES = "any auto $(ls /sys/class/net 2>/dev/null)"


def bash(name: str, command: Command, settings: list[Argument]) -> str:
    """A function that walks the words up to the cursor: ``at`` becomes the path of the command, such as /config/get."""
    values: dict[str, list[str]] = {}  # what completes a value -> "command option" patterns
    for sub in command.all():
        for one in (
            option for option in sub.options if option.metavar and (sub is command or option not in command.options)
        ):
            before = '*"' if sub is command else f'"{_path(sub)}'
            values.setdefault(_bash_value(one), []).extend(f'{before} {flag}"' for flag in one.flags)
    for one in settings:
        values.setdefault(_bash_value(one), []).append(f'*" {one.long}"')
    paths = "|".join(_path(sub) for sub in list(command.all())[1:])
    lines = [
        f"# bash completion for {name}",
        f"_{name}() {{",
        '    local cur=${COMP_WORDS[COMP_CWORD]} at="" words="" word',
        "    COMPREPLY=()",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        f'        case "$at/$word" in {paths}) at=$at/$word ;; esac',
        "    done",
        '    case "$at ${COMP_WORDS[COMP_CWORD-1]}" in',
        *(f"        {'|'.join(patterns)}) {action}; return ;;" for action, patterns in values.items()),
        "    esac",
        '    case "$at" in',
        *(f'        "{_path(sub)}") {_bash_words(sub)} ;;' for sub in command.all()),
        "    esac",
        *([f'    [[ $at && $cur == --* ]] && words+=" {" ".join(one.long for one in settings)}"'] if settings else []),
        '    COMPREPLY+=($(compgen -W "$words" -- "$cur"))',
        "}",
        f"complete -F _{name} {name}",
    ]
    return "\n".join(lines) + "\n"


def _path(command: Command) -> str:
    return "".join(f"/{word}" for word in command.path)


def _bash_value(argument: Argument) -> str:
    if argument.words:
        return f'COMPREPLY=($(compgen -W "{" ".join(argument.words)}" -- "$cur"))'
    if argument.is_device:
        return f'COMPREPLY=($(compgen -W "{DEVICES}" -- "$cur"))'
    return 'COMPREPLY=($(compgen -f -- "$cur"))' if argument.is_file else ":"


def _bash_words(command: Command) -> str:
    words = [sub.name for sub in command.below] + [flag for one in command.options for flag in one.flags]
    words += [word for one in command.places for word in one.words]
    files = '; COMPREPLY=($(compgen -f -- "$cur"))' if any(one.is_file for one in command.places) else ""
    return f'words="{" ".join(words)}"{files}'


def zsh(name: str, command: Command, settings: list[Argument]) -> str:
    """One function a command; _arguments does the rest."""
    functions = [_zsh_function(name, sub, settings if sub.path else []) for sub in command.all()]
    return "\n".join([f"#compdef {name}", "", *functions, f'_{name} "$@"']) + "\n"


def _zsh_function(name: str, command: Command, settings: list[Argument]) -> str:
    specs = [_zsh_option(one) for one in (*command.options, *settings)]
    if not command.below:
        specs += [f"'*:{_zsh_text(one.metavar)}:{_zsh_value(one)}'" for one in command.places[:1]]
        body = ["    _arguments -s \\", *(f"        {spec} \\" for spec in specs), "        && return"]
    else:
        texts = [f"'{_zsh_text(sub.name)}:{_zsh_text(sub.help)}'" for sub in command.below]
        calls = [f"                {sub.name}) {_zsh_name(name, sub)} ;;" for sub in command.below]
        body = [
            "    local state",
            f"    local -a commands=({' '.join(texts)})",
            "    _arguments -C \\",
            *(f"        {spec} \\" for spec in specs),
            "        '1: :->command' '*:: :->rest' && return",
            "    case $state in",
            "        command) _describe command commands ;;",
            "        rest)",
            "            case $words[1] in",
            *calls,
            "            esac ;;",
            "    esac",
        ]
    return "\n".join([f"{_zsh_name(name, command)}() {{", *body, "}", ""])


def _zsh_name(name: str, command: Command) -> str:
    return "_" + "_".join((name, *command.path)).replace("-", "_")


def _zsh_option(argument: Argument) -> str:
    value = f":{_zsh_text(argument.metavar)}:{_zsh_value(argument)}" if argument.metavar else ""
    text = f"[{_zsh_text(argument.help)}]{value}"
    if len(argument.flags) == 1:
        return f"'{argument.long}{text}'"
    return f"'({' '.join(argument.flags)})'{{{','.join(argument.flags)}}}'{text}'"


def _zsh_value(argument: Argument) -> str:
    if argument.words:
        return f"({' '.join(argument.words)})"
    return "_net_interfaces" if argument.is_device else "_files" if argument.is_file else " "


def _zsh_text(text: str) -> str:
    for char in "\\[]:":
        text = text.replace(char, "\\" + char)
    return text.replace("'", "'\\''")


def fish(name: str, command: Command, settings: list[Argument]) -> str:
    lines = [f"complete -c {name} -f"]
    for sub in command.all():
        here = [f"__fish_seen_subcommand_from {word}" for word in sub.path]
        names = " ".join(below.name for below in sub.below)
        not_yet = [f"not __fish_seen_subcommand_from {names}"] if names else []
        lines += [_fish(name, [*here, *not_yet], f"-a {below.name}", below.help) for below in sub.below]
        lines += [_fish(name, here, _fish_option(one), one.help) for one in sub.options]
        for one in sub.places:
            if one.words or one.is_file:
                lines.append(_fish(name, here, f"-a '{' '.join(one.words)}'" if one.words else "-F", one.help))
    lines += [_fish(name, ["not __fish_use_subcommand"], _fish_option(one), one.help) for one in settings]
    return "\n".join(lines) + "\n"


def _fish(name: str, conditions: list[str], what: str, text: str) -> str:
    condition = f" -n '{'; and '.join(conditions)}'" if conditions else ""
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"complete -c {name}{condition} {what}" + (f" -d '{quoted}'" if text else "")


def _fish_option(argument: Argument) -> str:
    flags = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in argument.flags]
    if argument.words:
        return f"{' '.join(flags)} -x -a '{' '.join(argument.words)}'"
    if argument.is_device:
        return f"{' '.join(flags)} -x -a 'any auto (command ls /sys/class/net)'"
    return " ".join([*flags, "-r -F" if argument.is_file else "-x" if argument.metavar else ""]).strip()
