"""Certificates for one test: an authority, a server at 127.0.0.1, a client."""

from __future__ import annotations

import subprocess
from pathlib import Path

_DAYS = "2"


def make_pki(directory: Path) -> Path:
    """Write ca.pem, server.pem, server.key, client.pem and client.key; return ``directory``."""
    _openssl(directory, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test-authority"
             f" -keyout ca.key -out ca.pem -days {_DAYS}")  # fmt: skip
    _issue(directory, "server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    _issue(directory, "client", "extendedKeyUsage=clientAuth\n")
    return directory


def _issue(directory: Path, name: str, extensions: str) -> None:
    (directory / f"{name}.ext").write_text(extensions)
    _openssl(directory, "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
             f" -subj /CN={name} -keyout {name}.key -out {name}.csr")  # fmt: skip
    _openssl(directory, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
             f" -extfile {name}.ext -out {name}.pem -days {_DAYS}")  # fmt: skip


def _openssl(directory: Path, arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments.split()], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
