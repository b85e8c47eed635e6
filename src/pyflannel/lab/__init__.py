"""A whole cluster on one machine: hosts and containers as network namespaces."""

from __future__ import annotations


class LabError(Exception):
    """A lab cannot be built, found or taken down; the message says what is missing and what helps."""
