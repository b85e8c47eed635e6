"""The options of ``flanneld`` (compat §1).

Rules of this room
  1. One entry of ``Settings`` is the whole truth about an option: its flag, its environment variable, its type, what
     values make sense, its default, its help text and whether it must be hidden.
  2. It is handed values and hands back values: reading the command line and the environment is ``cli/``'s business,
     and so is saying a problem aloud.
  3. All problems are reported at once, and nothing runs on settings that have one.
  4. A secret is shown by no function here except ``secrets``.
"""

from pyflannel.settings.options import (
    OPTIONS,
    RETIRED,
    EtcdApi,
    Kind,
    LogFormat,
    Offload,
    Option,
    Retired,
    Settings,
    Source,
    Value,
    config_line,
    describe,
)
from pyflannel.settings.resolution import Resolved, environment_name, resolve, secrets

__all__ = [
    "OPTIONS",
    "RETIRED",
    "EtcdApi",
    "Kind",
    "LogFormat",
    "Offload",
    "Option",
    "Resolved",
    "Retired",
    "Settings",
    "Source",
    "Value",
    "config_line",
    "describe",
    "environment_name",
    "resolve",
    "secrets",
]
