"""Where the agent of a host can be asked."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Final

NAME: Final = "flanneld.sock"
"""Of the control socket."""


def control_socket(subnet_file: str | PurePath) -> Path:
    """The socket of the agent that keeps this subnet file: beside it, so that several agents have one each."""
    return Path(subnet_file).parent / NAME
