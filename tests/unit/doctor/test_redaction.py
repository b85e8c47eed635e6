"""Planted secrets, in every shape we know of, and what has to stay readable beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.doctor.redaction import redact

SECRET = "hunter2-Hunter3"
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"http://root:{SECRET}@10.0.0.1:2379", "http://***@10.0.0.1:2379"),
        (f"http://root:{SECRET}/@:x@10.0.0.1:2379/v2", "http://***@10.0.0.1:2379/v2"),
        (f"https://a:{SECRET}@one:2379,https://b:{SECRET}@two:2379", "https://***@one:2379,https://***@two:2379"),
        (f"flanneld -etcd-password={SECRET} -iface=ens33", "flanneld -etcd-password=*** -iface=ens33"),
        (f"flanneld --etcd-password {SECRET} -v 1", "flanneld --etcd-password *** -v 1"),
        (f'FLANNELD_ETCD_PASSWORD="{SECRET} and more"', 'FLANNELD_ETCD_PASSWORD="***"'),
        (f"export API_KEY='{SECRET}'", "export API_KEY='***'"),
        (f'{{"PSK":"{SECRET}","Type":"wireguard"}}', '{"PSK":"***","Type":"wireguard"}'),
        (f'{{"text":"{{\\"PSK\\":\\"{SECRET}\\",\\"A\\":1}}"}}', '{"text":"{\\"PSK\\":\\"***\\",\\"A\\":1}"}'),
        (f"{{'password': '{SECRET}', 'user': 'root'}}", "{'password': '***', 'user': 'root'}"),
        (f"token: {SECRET}", "token: ***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"asked with bearer {SECRET}xx", "asked with bearer ***"),
        (f"it said {JWT}, and went", "it said ***, and went"),
        (f"PrivateKey = {KEY}", "PrivateKey = ***"),
        (f"a lone {KEY} here", "a lone *** here"),
        (f'msg="login failed: password={SECRET}" code=7', 'msg="login failed: password=***" code=7'),
    ],
)
def test_a_secret_goes_and_what_is_around_it_stays(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize("end", ["-----END EC PRIVATE KEY-----\nafter", ""], ids=["whole", "cut off"])
def test_a_private_key_goes_wherever_it_ends(end: str) -> None:
    text = redact(f"before\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE{SECRET}\n{end}")
    assert SECRET not in text
    assert text.startswith("before\n")
    assert text.endswith("after") is bool(end)


def test_another_private_key_goes_where_the_first_line_of_one_is_a_known_secret() -> None:
    head = "-----BEGIN PRIVATE KEY-----"
    text = redact(f"{head}\nMHcCAQEE{SECRET}\n-----END PRIVATE KEY-----\n", {head, "MHcCAQEEother"})
    assert SECRET not in text


@pytest.mark.parametrize(
    "text",
    [
        f'"PublicKey":"{PUBLIC}"',
        f"peer: {PUBLIC}",
        f"  public key: {PUBLIC}",
        "private key: (hidden)",
        "etcd-password = ***",
        "etcd-keyfile = /etc/flannel/client.key",
        "http://172.16.41.130:2379",
        "user@host",
        "10.2.9.0/24 via 10.2.9.0 dev flannel.1 onlink",
        "02:00:00:00:00:01 dev flannel.1 dst 172.16.41.132 self permanent",
        '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD',
        "net.ipv4.ip_forward = 1",
    ],
)
def test_what_helpers_need_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.text(min_size=4, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_a_known_secret_stands_nowhere(secret: str, before: str, after: str) -> None:
    assert secret not in redact(f"{before}{secret}{after}", [secret]) or "*" in secret


@given(st.text(alphabet="abcdefghij 0123456789.,-/_[]\n", max_size=400))
def test_plain_words_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=400))
def test_no_text_is_too_strange(text: str) -> None:
    assert redact(text).count("\n") <= text.count("\n")


@pytest.mark.parametrize(
    "part",
    ["-A KUBE-SVC-TOKEN-secret_secret.secret -s 10.2.0.0/16\n", "x", "x-", "://", "token ", "eyJ", "--", "a://b,"],
)
def test_a_large_text_is_done_within_the_time_of_a_test(part: str) -> None:
    text = part * (200_000 // len(part))
    assert len(redact(text)) > 0
