"""A real etcd on loopback: one member, free ports, its data in a directory of the test.

    with Etcd(tmp_path, v2=True) as etcd:
        etcd.ctl("put", "/docker/network/config", "{}")

Only the process started here is ever ended, by its own handle.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, urlencode

from tests.support.machines import hold

_START_S = 20.0
_HTTP_S = 5.0


class Etcd:
    """A member, running from the start of the ``with`` block to its end."""

    def __init__(
        self,
        directory: Path,
        *,
        v2: bool = False,
        arguments: tuple[str, ...] = (),
        client_tls: Path | None = None,
        anybody: bool = False,
    ) -> None:
        """``client_tls``, a directory with ca.pem, server.pem and server.key: clients must speak TLS.

        And show a certificate, unless ``anybody`` may come.
        """
        client_port, peer_port = free_ports(2)
        self.port = client_port
        self.url = f"{'https' if client_tls else 'http'}://127.0.0.1:{client_port}"
        self._log = directory / "etcd.log"
        self._client_tls = client_tls
        peer = f"http://127.0.0.1:{peer_port}"
        self._argv = ["etcd", "--name=one", f"--data-dir={directory / 'etcd-data'}", f"--enable-v2={str(v2).lower()}"]
        self._argv += [f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}"]
        self._argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        self._argv += [f"--initial-cluster=one={peer}", "--log-level=warn", "--logger=zap"]
        # Alone it has nobody to wait for; this halves the time it takes to start.
        self._argv += ["--heartbeat-interval=10", "--election-timeout=100", *arguments]
        self._ctl = ["etcdctl", f"--endpoints={self.url}"]
        if client_tls is not None:
            ca, server, key = (client_tls / name for name in ("ca.pem", "server.pem", "server.key"))
            self._argv += [f"--cert-file={server}", f"--key-file={key}"]
            self._argv += [] if anybody else [f"--trusted-ca-file={ca}", "--client-cert-auth"]
            self._ctl += [f"--cacert={ca}", f"--cert={server}", f"--key={key}"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Etcd:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, or start it again with the same data at the same address; returns when it answers."""
        assert self._process is None
        # Variables of the test's own environment must not configure it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "ETCDCTL_"))}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        give_up = time.monotonic() + _START_S
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise AssertionError(f"etcd did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it without a word of farewell; what it acknowledged is on disk."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """Let it hang: connections stay, and the kernel goes on accepting new ones."""
        assert self._process is not None
        hold(self._process)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ctl(self, *arguments: str, stdin: str | None = None) -> str:
        """What ``etcdctl`` (API 3) prints."""
        done = subprocess.run(
            [*self._ctl, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr}"
        return done.stdout

    def revision(self) -> int:
        """Of the v3 store, now."""
        (member,) = json.loads(self.ctl("endpoint", "status", "--write-out=json"))
        return int(member["Status"]["header"]["revision"])

    def v2(self, method: str, key: str, form: Mapping[str, str] | None = None, query: str = "") -> dict[str, object]:
        """The answer of the v2 API about ``key``, an error included."""
        body = urlencode(form).encode() if form is not None else None
        headers = {"content-type": "application/x-www-form-urlencoded"} if body is not None else {}
        answer = self.http(method, f"/v2/keys{quote(key)}{query}", body, headers)
        decoded: dict[str, object] = json.loads(answer)
        return decoded

    def http(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of an answer, whatever its status."""
        request = urllib.request.Request(self.url + target, body, dict(headers or {}), method=method)
        context = None
        if self._client_tls is not None:
            context = ssl.create_default_context(cafile=self._client_tls / "ca.pem")
            context.load_cert_chain(self._client_tls / "server.pem", self._client_tls / "server.key")
        try:
            with urllib.request.urlopen(request, timeout=_HTTP_S, context=context) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                content = error.read()
        return content

    def _is_healthy(self) -> bool:
        try:
            return b'"true"' in self.http("GET", "/health")
        except OSError:
            return False


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
