from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import (
    Credentials,
    Endpoint,
    NotOffered,
    Rotation,
    Tls,
    parse_endpoint,
    plain_words,
    tls_context,
)
from tests.support.loops import run

A, B, C = (Endpoint(host, 2379) for host in "abc")


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://172.16.41.130:2379", Endpoint("172.16.41.130", 2379)),
        ("https://etcd.example:4001/", Endpoint("etcd.example", 4001, secure=True)),
        (" http://127.0.0.1 ", Endpoint("127.0.0.1", 2379)),
        ("127.0.0.1:4001", Endpoint("127.0.0.1", 4001)),
        ("http://[fd00::1]:2379", Endpoint("fd00::1", 2379)),
        ("http://user:hidden@h:1/path", Endpoint("h", 1)),
    ],
)
def test_endpoint_is_read(url: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(url) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:70000", "http://h:x", "unix:///run/etcd.sock", ""])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="etcd endpoint "):
        parse_endpoint(url)


def test_password_in_a_bad_url_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="ftp://h") as caught:
        parse_endpoint("ftp://user:hidden@h")
    assert "hidden" not in str(caught.value)


def test_password_does_not_show() -> None:
    assert "hidden" not in repr(Credentials("root", "hidden"))


# TLS


def test_context_asks_for_a_certificate_of_the_right_name_and_tls_1_2() -> None:
    context = tls_context(Tls())
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("which", ["cafile", "certfile", "keyfile"])
def test_missing_file_is_named(tmp_path: Path, which: str) -> None:
    absent = str(tmp_path / "absent.pem")
    with pytest.raises(Unavailable, match=f"cannot read {absent}: no such file"):
        tls_context(Tls(**{which: absent}))


@pytest.mark.parametrize("which", ["cafile", "certfile"])
def test_file_without_certificate_is_named(tmp_path: Path, which: str) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing of the kind")
    with pytest.raises(Unavailable, match=f"no usable .* in {empty}"):
        tls_context(Tls(**{which: str(empty)}))


# Words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), [Errno 111] Connect call"),
            "connection refused",
        ),
        (OSError(errno.EHOSTUNREACH, "x"), os.strerror(errno.EHOSTUNREACH).lower()),
        (TimeoutError("no answer within 5 s"), "no answer within 5 s"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(-2, "Name or service not known"), "no address for that name: Name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "wrong version number"),
        (OSError(), "OSError"),
    ],
)
def test_failures_are_told_in_plain_words(error: OSError, words: str) -> None:
    assert words in plain_words(error)


# Rotation


class Members:
    """Endpoints which answer, or fail as told."""

    def __init__(self, **failing: Exception) -> None:
        self.failing = failing
        self.asked: list[str] = []

    async def question(self, endpoint: Endpoint) -> str:
        self.asked.append(endpoint.host)
        if endpoint.host in self.failing:
            raise self.failing[endpoint.host]
        return endpoint.host


def test_member_that_answered_last_is_asked_first() -> None:
    async def story() -> None:
        members, rotation = Members(a=Unavailable("down")), Rotation("etcd", [A, B, C])
        assert await rotation.ask(members.question) == "b"
        members.failing = {}
        assert await rotation.ask(members.question) == "b"
        assert members.asked == ["a", "b", "b"]

    run(story())


def test_avoided_member_is_asked_last() -> None:
    async def story() -> None:
        members, rotation = Members(), Rotation("etcd", [A, B])
        rotation.avoid(A)
        rotation.avoid(A)
        assert await rotation.ask(members.question) == "b"

    run(story())


def test_when_nobody_answers_all_of_them_are_told_about() -> None:
    async def story() -> None:
        members, rotation = Members(a=Unavailable("down"), b=NotOffered("too old")), Rotation("etcd v3", [A, B])
        with pytest.raises(Unavailable) as caught:
            await rotation.ask(members.question)
        assert str(caught.value) == "etcd v3 at http://a:2379: down; at http://b:2379: too old"
        assert not isinstance(caught.value, NotOffered)

    run(story())


def test_api_that_no_member_has_is_not_offered() -> None:
    async def story() -> None:
        members = Members(a=NotOffered("too old"), b=NotOffered("too old"))
        with pytest.raises(NotOffered):
            await Rotation("etcd v3", [A, B]).ask(members.question)

    run(story())


def test_any_other_error_ends_the_round() -> None:
    async def story() -> None:
        members = Members(a=KeyError("no"))
        with pytest.raises(KeyError):
            await Rotation("etcd v3", [A, B]).ask(members.question)
        assert members.asked == ["a"]

    run(story())


def test_no_endpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one endpoint"):
        Rotation("etcd v3", [])
