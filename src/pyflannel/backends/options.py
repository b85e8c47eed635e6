"""The options of a backend: the keys beside ``Type`` in the ``Backend`` object (compat §5.0).

Rules of this file
  1. A wrong value stops the start with a message naming ``Backend.<Key>``; a key that no backend reads is a warning.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyflannel.lease.fields import JSON, Fields


class Options(Fields):
    """``Backend``, with the readers of ``Fields``: ``integer``, ``flag``, ``text``; then ``complaints``."""

    def __init__(self, values: Mapping[str, JSON]) -> None:
        """Read the object as it stands in the network configuration."""
        super().__init__(values, prefix="Backend.")
        self.ignore("Type")
