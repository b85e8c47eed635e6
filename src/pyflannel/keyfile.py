"""The private key by which peers know this host over WireGuard, kept in a file only we can read.

Rules of this file
  1. The key outlives a reboot, or every peer would have to learn another: it is kept in the state directory.  Go
     flanneld keeps it under /run; a key that is found there, and nowhere else, is taken over, so that a host which
     changes from one to the other stays who it is.
  2. A file that is there and holds no key is an error, never replaced: somebody meant something by it.
  3. What is in the file shows in no message.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pyflannel.backends.api import Backend
from pyflannel.backends.wireguard import Wireguard
from pyflannel.outputs import write_atomic
from pyflannel.wireguard import KEY_LENGTH, KeyPair, PublicKey, SecretKey

log = logging.getLogger(__name__)

NAME: Final = "wgkey"
VARIABLE: Final = "WIREGUARD_KEY_FILE"
"""Names another file, as with Go flanneld (compat §1.2)."""
FORMER: Final = Path("/run/flannel/wgkey")
"""Where Go flanneld keeps its key (compat §5.5)."""
MODE: Final = 0o400
LONGEST: Final = 4096
"""Bytes of a file that are looked at."""
TIMEOUT_S: Final = 5.0


class BadKeyFile(Exception):
    """There is no using the key file; the message says which one and why, and nothing of what is in it."""


def place(state_dir: Path, environment: Mapping[str, str]) -> Path:
    """Where the key is kept: where the environment says, or else in the state directory."""
    named = environment.get(VARIABLE, "")
    return Path(named) if named else state_dir / NAME


def load(path: Path, former: Path | None = FORMER) -> KeyPair | None:
    """The key in ``path``, or else in ``former``; None if there is neither file.  ``BadKeyFile`` if one is no use."""
    for each in (path, former):
        private = None if each is None else _read(each)
        if private is not None:
            return KeyPair(private, public_key(private))
    return None


def load_or_make(path: Path, random_bytes: Callable[[int], bytes], former: Path | None = FORMER) -> KeyPair:
    """The key of this host, in ``path`` from now on; a new one if there was none.  ``BadKeyFile`` as above."""
    found = load(path, former)
    pair = found or generate(random_bytes)
    try:
        if not path.exists():
            write_atomic(path, pair.private.text, MODE)
            log.info("%s the WireGuard key %s in %s", "Keeping" if found else "Made and keep", pair.public, path)
        elif path.stat().st_mode & 0o077:
            log.warning("The WireGuard key in %s can be read by others than its owner: chmod 400 %s", path, path)
    except OSError as exc:
        raise BadKeyFile(f"writing the WireGuard key to {path}: {exc.strerror}") from None
    return pair


def keyed(backend: Backend, state_dir: Path) -> Backend:
    """The wireguard backend with this host's keys, made if there are none yet; ``BadKeyFile``."""
    assert isinstance(backend, Wireguard)
    return backend.keyed(load_or_make(place(state_dir, os.environ), os.urandom))


def generate(random_bytes: Callable[[int], bytes]) -> KeyPair:
    """A new key; ``BadKeyFile`` as in ``public_key``."""
    private = SecretKey(random_bytes(KEY_LENGTH)).clamped()
    return KeyPair(private, public_key(private))


def public_key(private: SecretKey) -> PublicKey:
    """The public key that belongs to ``private``; ``BadKeyFile`` if nothing is installed that could tell."""
    try:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    except ImportError:
        return _by_program(private)
    return PublicKey(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def _by_program(private: SecretKey) -> PublicKey:
    try:
        done = subprocess.run(
            ["wg", "pubkey"], input=private.text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return PublicKey.parse(done.stdout.strip())
    except (OSError, subprocess.TimeoutExpired, ValueError):
        raise BadKeyFile(
            "working out the public WireGuard key of this host takes wg(8), or the Python package cryptography: "
            "apt-get install wireguard-tools, or pip install 'pyflannel[wireguard]'"
        ) from None


def _read(path: Path) -> SecretKey | None:
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BadKeyFile(f"reading the WireGuard key in {path}: {exc.strerror}") from None
    try:
        return SecretKey.parse(raw.decode("ascii", errors="replace").strip()).clamped()
    except ValueError as exc:
        raise BadKeyFile(
            f"{path} holds no WireGuard key: {exc}; put one there (wg genkey), or move the file away to get a new one"
        ) from None
