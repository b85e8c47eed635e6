"""Leases in and out: the stores, all behind the one protocol of ``store.api``."""
