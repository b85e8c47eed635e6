"""Certificates for one test: an authority, a server at 127.0.0.1, a client.

What a test wants otherwise, ``issue`` writes over them, as an administrator would: files replaced, names kept.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SERVER = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
ELSEWHERE = "subjectAltName=DNS:elsewhere.example,IP:127.0.0.2\nextendedKeyUsage=serverAuth,clientAuth\n"
"""A server that is not at 127.0.0.1."""
CLIENT = "extendedKeyUsage=clientAuth\n"

_DAYS = 2
EXPIRED = -1
"""Days of validity of a certificate that ended yesterday."""


def make_pki(directory: Path) -> Path:
    """Write ca.pem, server.pem, server.key, client.pem and client.key; return ``directory``."""
    directory.mkdir(exist_ok=True)
    _openssl(directory, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test-authority"
             f" -keyout ca.key -out ca.pem -days {_DAYS}")  # fmt: skip
    issue(directory, "server", SERVER)
    issue(directory, "client", CLIENT)
    return directory


def issue(directory: Path, name: str, extensions: str, days: int = _DAYS) -> None:
    """Write a new key and a certificate for it, in place of those of that name."""
    (directory / f"{name}.ext").write_text(extensions)
    _openssl(directory, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
             f" -subj /CN={name} -keyout {name}.key -out {name}.csr")  # fmt: skip
    _openssl(directory, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
             f" -extfile {name}.ext -out {name}.pem -days {days}")  # fmt: skip


def encrypt_key(directory: Path, name: str) -> None:
    """Put a password on a key."""
    _openssl(directory, f"ec -in {name}.key -out {name}.key -aes256 -passout pass:hidden")


def _openssl(directory: Path, arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments.split()], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
