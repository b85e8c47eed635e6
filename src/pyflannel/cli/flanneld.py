"""``flanneld``: from the command line to a running agent (compat §1, §9.3, §9.5).

The order is Go's: flags, ``-version``, environment, logging, checks.  A command line that Go accepts is accepted.
Nothing heavy is imported before it is known that there is an agent to run.

Exit status: 2 for a command line or a setting that is wrong.  ``-compat-exit-codes`` brings back Go's: 0 where flags
cannot be parsed, 1 where what they say cannot be used.  With ``-dry-run`` 2 means that there is something to do, 3 that
the network is configured for a backend which is not supported, and whatever else is wrong gives 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from pyflannel import __version__
from pyflannel.cli import goflags
from pyflannel.settings import OPTIONS, RETIRED, Kind, Resolved, Value, config_line, environment_name, resolve

KINDS: Mapping[str, Kind] = {flag: option.kind for flag, option in OPTIONS.items()} | {
    flag: retired.kind for flag, retired in RETIRED.items()
}

USAGE_ERROR = 2
HINT = "flanneld -help lists the options"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``flanneld`` and return its exit status.  ``argv`` excludes the program's name."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        parsed = goflags.parse(arguments, KINDS)
    except goflags.HelpRequested:
        sys.stderr.write(usage())
        return 0
    except goflags.UsageError as error:
        sys.stderr.write(f"flanneld: {error}{_suggestion(error.flag)}\n{HINT}\n")
        return _usage_error(arguments)
    if parsed.values.get("version", [False])[-1]:
        sys.stderr.write(f"v{__version__}\n")
        return 0
    return _start(parsed, os.environ)


def _start(parsed: goflags.Parsed, environ: Mapping[str, str]) -> int:
    environment, unread = from_environment(environ)
    resolved = resolve(parsed.values, environment)
    if not _report(resolved, [*filter(None, [parsed.warning]), *unread]):
        return 1 if resolved.settings.compat_exit_codes or resolved.settings.dry_run else USAGE_ERROR
    if resolved.settings.dry_run:
        from pyflannel.cli.plan_view import dry_run

        return dry_run(resolved.settings)

    from pyflannel.daemon import run

    return run(resolved.settings)


def _report(resolved: Resolved, warnings: Sequence[str]) -> bool:
    """Set logging up and say what there is to say; False if the agent must not start."""
    import logging

    from pyflannel.telemetry import logs

    logs.setup(resolved.settings)
    log = logging.getLogger("pyflannel.cli.flanneld")
    for warning in (*warnings, *resolved.warnings):
        log.warning("%s", warning)
    for problem in resolved.problems:
        log.error("%s", problem)
    if resolved.problems:
        log.error("%s", HINT)
    else:
        log.info("CLI flags config: %s", config_line(resolved.settings))
    return not resolved.problems


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Value], list[str]]:
    """Values by flag from ``FLANNELD_…`` variables, and warnings about those that cannot be read (compat §1.2).

    An empty variable counts as unset; one that does not parse leaves the default, as Go does.
    """
    flags = {environment_name(flag): flag for flag in KINDS if flag != "version"}
    values: dict[str, Value] = {}
    warnings: list[str] = []
    for name, text in sorted(environ.items()):
        if not name.startswith("FLANNELD_") or not text:
            continue
        if name not in flags:
            warnings.append(f"{name} is ignored: there is no such option")
            continue
        flag = flags[name]
        try:
            values[flag] = goflags.read(KINDS[flag], text)
        except ValueError as error:
            warnings.append(f"{name}={text} is ignored: {error}")
    return values, warnings


def usage() -> str:
    """The help text, in the form of Go's ``flag`` package."""
    from textwrap import wrap

    lines = ["Usage: flanneld [OPTION]..."]
    for flag, known in OPTIONS.items():
        kind = {bool: "", int: " int", str: " value" if known.repeatable else " string"}[known.kind]
        default = known.show(known.default)
        if default in ("", "false", "0"):
            default = ""
        elif known.kind is str:
            default = f' (default "{default}")'
        else:
            default = f" (default {default})"
        lines += [f"  -{flag}{kind}", f"    \t{known.help}{default}"]
    lines += [
        "",
        "Every option can also be given in the environment, -etcd-prefix=/net as FLANNELD_ETCD_PREFIX=/net;",
        "the command line wins.  A boolean takes a value only with '=': -ip-masq, or -ip-masq=false.",
        "",
        "Accepted and ignored, for the sake of old command lines:",
        *wrap(" ".join(f"-{flag}" for flag in sorted(RETIRED)), width=110, break_on_hyphens=False),
    ]
    return "\n".join(lines) + "\n"


def _suggestion(flag: str) -> str:
    """For a flag that does not exist: one that does and looks like it."""
    if flag in KINDS:
        return ""
    from difflib import get_close_matches

    close = get_close_matches(flag, OPTIONS, n=1)
    return f"; did you mean -{close[0]}?" if close else ""


def _usage_error(arguments: Sequence[str]) -> int:
    """The exit status for a command line that cannot be understood."""
    if _wants("compat-exit-codes", arguments, os.environ):
        return 0
    return 1 if _wants("dry-run", arguments, os.environ) else USAGE_ERROR


def _wants(flag: str, arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a boolean is on; looked for everywhere, since it may stand behind what could not be understood."""
    words = [environ.get(environment_name(flag), "")]
    for argument in arguments:
        name, equals, word = argument.partition("=")
        if name in (f"-{flag}", f"--{flag}"):
            words.append(word if equals else "true")
    try:
        return bool(goflags.read(bool, words[-1]))
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
