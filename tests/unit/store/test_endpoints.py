from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from pathlib import Path

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import (
    CALL_S,
    SLOW_S,
    Credentials,
    Endpoint,
    NotOffered,
    Rotation,
    Tls,
    own_fault,
    parse_endpoint,
    plain_words,
    tls_context,
)
from tests.support.loops import run, run_jumping
from tests.support.pki import CLIENT, EXPIRED, encrypt_key, issue, make_pki

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
        (ssl.SSLError(1, "sslv3 alert bad certificate"), "TLS failed: the server says: bad certificate"),
        (OSError(), "OSError"),
    ],
)
def test_failures_are_told_in_plain_words(error: OSError, words: str) -> None:
    assert words in plain_words(error)


def test_encrypted_key_is_named_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    encrypt_key(pki, "client")
    key = str(pki / "client.key")
    with pytest.raises(Unavailable, match=f"{key} is encrypted"):
        tls_context(Tls(certfile=str(pki / "client.pem"), keyfile=key))


def test_certificate_with_the_key_of_another_is_named(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    certificate, key = str(pki / "client.pem"), str(pki / "server.key")
    with pytest.raises(Unavailable, match=f"no usable pair of certificate and key in {certificate} and {key}"):
        tls_context(Tls(certfile=certificate, keyfile=key))


@pytest.mark.parametrize(
    ("extensions", "days", "fault"),
    [
        (CLIENT, EXPIRED, "certificate has expired"),
        ("extendedKeyUsage=serverAuth\n", 1, "unsuitable certificate purpose"),
    ],
)
def test_fault_of_our_own_certificate_is_found(tmp_path: Path, extensions: str, days: int, fault: str) -> None:
    pki = make_pki(tmp_path)
    issue(pki, "client", extensions, days)
    certificate = str(pki / "client.pem")
    tls = Tls(certfile=certificate, keyfile=str(pki / "client.key"))
    assert own_fault(tls) == f"our own certificate {certificate} is no good: {fault}"


def test_good_certificate_has_no_fault_and_neither_has_one_that_cannot_be_read(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    assert own_fault(Tls(certfile=str(pki / "client.pem"), keyfile=str(pki / "client.key"))) == ""
    assert own_fault(Tls(certfile=str(pki / "absent.pem"), keyfile=str(pki / "client.key"))) == ""


def test_who_shows_no_certificate_is_told_that_one_may_be_wanted() -> None:
    assert own_fault(Tls(cafile="ca.pem")) == "we showed no certificate, if it wants one"


# Rotation


class Members:
    """Endpoints which answer, or fail as told."""

    def __init__(self, **failing: Exception) -> None:
        self.failing = failing
        self.slow: dict[str, float] = {}
        self.asked: list[str] = []

    async def question(self, endpoint: Endpoint) -> str:
        self.asked.append(endpoint.host)
        await asyncio.sleep(self.slow.get(endpoint.host, 0))
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


def test_member_that_failed_is_asked_after_all_others() -> None:
    async def story() -> None:
        members, rotation = Members(a=Unavailable("hangs")), Rotation("etcd", [A, B, C])
        assert await rotation.ask(members.question) == "b"
        members.failing["b"] = Unavailable("down")
        assert await rotation.ask(members.question) == "c"
        del members.failing["b"]
        members.failing["c"] = Unavailable("down")
        assert await rotation.ask(members.question) == "b"
        assert "".join(members.asked) == "ab" + "bc" + "cab"

    run(story())


def test_slow_member_answers_once_and_then_others_are_asked() -> None:
    async def story() -> None:
        members, rotation = Members(), Rotation("etcd", [A, B, C])
        members.slow = {"a": SLOW_S}
        assert await rotation.ask(members.question) == "a"
        assert await rotation.ask(members.question) == "b"
        assert await rotation.ask(members.question) == "b"

    run_jumping(story())


def test_when_all_are_slow_they_take_turns() -> None:
    async def story() -> None:
        members, rotation = Members(), Rotation("etcd", [A, B])
        members.slow = {"a": SLOW_S, "b": 2 * SLOW_S}
        assert [await rotation.ask(members.question) for _ in range(3)] == ["a", "b", "a"]

    run_jumping(story())


def test_next_member_is_asked_beside_one_that_takes_long() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        members, rotation = Members(b=Unavailable("down")), Rotation("etcd", [A, B, C])
        members.slow = {"a": 60.0}
        assert (await rotation.ask(members.question, 1.0), loop.time()) == ("c", 1.0)
        assert (await rotation.ask(members.question, 1.0), loop.time()) == ("c", 1.0)
        assert len(asyncio.all_tasks()) == 1  # nobody waits for a any more

    run_jumping(story())


def test_member_that_takes_long_still_answers_if_no_other_does() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        members, rotation = Members(b=Unavailable("down")), Rotation("etcd", [A, B])
        members.slow = {"a": 4.0}
        assert (await rotation.ask(members.question, 1.0), loop.time()) == ("a", 4.0)

    run_jumping(story())


def test_member_that_owes_an_answer_is_asked_again_when_all_others_were_asked() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        members, rotation = Members(b=Unavailable("no leader")), Rotation("etcd", [A, B, C])
        members.slow = {"a": 60.0, "c": 60.0}
        loop.call_later(2.5, members.slow.clear)
        assert (await rotation.ask(members.question, 1.0), loop.time()) == ("a", 3.0)
        assert "".join(members.asked) == "a" + "bc" + "a"
        assert await rotation.ask(members.question, 1.0) == "a"

    run_jumping(story())


def test_only_member_is_asked_once() -> None:
    async def story() -> None:
        members, rotation = Members(), Rotation("etcd", [A])
        members.slow = {"a": 4.0}
        assert await rotation.ask(members.question, 1.0) == "a"
        assert members.asked == ["a"]

    run_jumping(story())


def test_members_that_say_no_at_once_are_not_asked_again() -> None:
    async def story() -> None:
        members, rotation = Members(a=Unavailable("down"), b=Unavailable("down")), Rotation("etcd", [A, B])
        with pytest.raises(Unavailable, match="down"):
            await rotation.ask(members.question, 1.0)
        assert members.asked == ["a", "b"]

    run_jumping(story())


def test_members_that_never_answer_are_given_up_in_the_end() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        members, rotation = Members(a=Unavailable("hangs"), b=Unavailable("hangs")), Rotation("etcd", [A, B])
        members.slow = {"a": CALL_S, "b": CALL_S}
        with pytest.raises(Unavailable, match="hangs"):
            await rotation.ask(members.question, 1.0)
        assert loop.time() <= 2 * CALL_S
        assert len(asyncio.all_tasks()) == 1

    run_jumping(story())


def test_question_that_is_cancelled_is_asked_nowhere_any_more() -> None:
    async def story() -> None:
        members, rotation = Members(), Rotation("etcd", [A, B])
        members.slow = {"a": 60.0, "b": 60.0}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await rotation.ask(members.question, 1.0)
        assert len(asyncio.all_tasks()) == 1

    run_jumping(story())


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
        rotation.avoid(A)
        with pytest.raises(Unavailable) as again:
            await rotation.ask(members.question)
        assert str(again.value) == str(caught.value)
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
