"""``flannelctl leases`` with a real store: the file that several agents of one machine share."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, TypeVar

import pytest
from click.testing import CliRunner, Result

from pyflannel.cli.flannelctl import cli
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Subnet
from pyflannel.lease.wire import subnet_name
from pyflannel.store.local import LocalStore
from tests.support.builders import subnet, vxlan_lease
from tests.support.embedded_stores import write_local_record

T = TypeVar("T")

PREFIX = "/docker/network"
CONFIG = '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}'
ONE, TWO, FREE = subnet("10.2.71.0/24"), subnet("10.2.41.0/24"), subnet("10.2.42.0/24")
MAC1, MAC2 = "c6:d2:32:6f:8f:44", "02:00:00:00:00:02"
HOST2, HOST3 = "172.16.41.131", "172.16.41.132"
ATTRS2 = Attrs(IPv4Address(HOST2), None, "vxlan", f'{{"VNI":1,"VtepMAC":"{MAC1}"}}')
ATTRS3 = vxlan_lease(ip=HOST3).attrs


@dataclass(frozen=True)
class Desk:
    """The command line, and the store behind it."""

    path: Path

    def ask(self, *arguments: str, typed: str | IO[bytes] | None = None) -> Result:
        """Run ``flannelctl leases`` with settings from the environment alone, as host2."""
        environment = {
            "FLANNELD_STORE": f"local:{self.path}",
            "FLANNELD_ETCD_PREFIX": PREFIX,
            "FLANNELD_PUBLIC_IP": HOST2,
        }
        words = list(arguments)
        if "--help" not in words:
            # Options of a command come after its name; those of the default command need none before them.
            words[0 if not words or words[0].startswith("-") else 1 : 0] = ["--no-defaults"]
        result = CliRunner(env=environment).invoke(cli, ["leases", *words], input=typed)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def done(self, *arguments: str, typed: str | None = None) -> str:
        result = self.ask(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *arguments: str, typed: str | None = None) -> str:
        """The one line that says why nothing was done."""
        before = self.raw()
        result = self.ask(*arguments, typed=typed)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert self.raw() == before
        return result.stderr

    def visit(self, deed: Callable[[LocalStore], Awaitable[T]]) -> T:
        async def scenario() -> T:
            store = LocalStore(self.path, PREFIX)
            try:
                return await deed(store)
            finally:
                await store.close()

        return asyncio.run(scenario())

    def leases(self) -> dict[Subnet, Lease]:
        return {lease.subnet: lease for lease in self.visit(LocalStore.leases).leases}

    def raw(self) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute("SELECT name, value, ttl IS NULL FROM lease ORDER BY name").fetchall()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """host2 with a lease, host3 with a reservation."""
    made = Desk(tmp_path / "leases.db")

    async def fill(store: LocalStore) -> None:
        await store.write_config(CONFIG)
        await store.create(ONE, ATTRS2, LEASE_TTL)
        await store.create(TWO, ATTRS3, None)

    made.visit(fill)
    return made


# List


@pytest.mark.parametrize("command", [(), ("list",)])
def test_leases_are_listed_by_address_with_what_a_person_wants_to_know(desk: Desk, command: tuple[str, ...]) -> None:
    header, *rows = [re.split(" {2,}", line) for line in desk.done(*command).splitlines()]
    assert header == ["SUBNET", "HOST", "BACKEND", "VTEP MAC", "TTL", "CREATED"]
    assert rows == [
        ["10.2.41.0/24", HOST3, "vxlan", MAC2, "reserved", "3"],
        ["10.2.71.0/24", HOST2, "vxlan", MAC1, "23h59m", "2", "(this host)"],
    ]


def test_list_says_which_leases_have_no_effect_and_why(desk: Desk) -> None:
    write_local_record(desk.path, PREFIX, "10.9.1.0-24", '{"PublicIP":"172.16.41.140","BackendType":"vxlan"}')
    write_local_record(desk.path, PREFIX, "10.2.9.0-24", "{\x1b[31m")
    result = desk.ask()
    assert result.exit_code == 0
    assert "ignored: lies outside the network 10.2.0.0/16" in result.stdout
    assert result.stderr.startswith(f"warning: {PREFIX}/subnets/10.2.9.0-24 cannot be read: ")
    assert "\x1b" not in result.output


def test_list_for_programs_has_everything(desk: Desk) -> None:
    write_local_record(desk.path, PREFIX, "10.2.9.0-24", "{}}")
    document = json.loads(desk.done("--json"))
    assert document == json.loads(desk.done("list", "--json")) | {"leases": document["leases"]}
    assert document["store"] == f"local store {desk.path}"
    assert [record["key"] for record in document["unreadable"]] == [f"{PREFIX}/subnets/10.2.9.0-24"]
    reserved, leased = document["leases"]
    assert reserved == {
        "subnet": "10.2.41.0/24",
        "ipv4": "10.2.41.0/24",
        "ipv6": None,
        "public_ip": HOST3,
        "public_ipv6": None,
        "backend_type": "vxlan",
        "backend_data": f'{{"VNI":1,"VtepMAC":"{MAC2}"}}',
        "backend_v6_data": None,
        "reservation": True,
        "ttl": None,
        "created": 3,
        "modified": 3,
        "this_host": False,
        "ignored": None,
    }
    assert (leased["subnet"], leased["this_host"], leased["reservation"]) == ("10.2.71.0/24", True, False)
    assert 0 < leased["ttl"] <= LEASE_TTL


def test_network_without_leases_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "leases.db")
    desk.visit(lambda store: store.write_config(CONFIG))
    assert desk.done() == f"no leases in local store {desk.path}\n"


def test_leases_are_listed_even_where_the_configuration_is_of_no_use(desk: Desk) -> None:
    desk.visit(lambda store: store.write_config('{"Network":"10.2.0.0/33"}'))
    result = desk.ask()
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3
    assert result.stderr.startswith("warning: which subnets and leases are of use cannot be told: Network ")


# Show


@pytest.mark.parametrize("spelling", ["10.2.71.0/24", "10.2.71.1/24", "10.2.71.0-24", f"{PREFIX}/subnets/10.2.71.0-24"])
def test_one_lease_is_shown_with_all_that_its_record_says(desk: Desk, spelling: str) -> None:
    shown = dict(line.split(maxsplit=1) for line in desk.done("show", spelling).splitlines())
    assert shown == {
        "Subnet": "10.2.71.0/24",
        "Key": f"{PREFIX}/subnets/10.2.71.0-24",
        "PublicIP": HOST2,
        "BackendType": "vxlan",
        "BackendData": f'{{"VNI":1,"VtepMAC":"{MAC1}"}}',
        "TTL": "23h59m",
        "Created": "revision 2",
        "Modified": "revision 2",
        "Host": "this one",
        "Value": f'{{"PublicIP":"{HOST2}","PublicIPv6":null,"BackendType":"vxlan",'
        f'"BackendData":{{"VNI":1,"VtepMAC":"{MAC1}"}}}}',
    }


def test_record_of_a_foreign_hand_is_shown_as_it_is_spelled(desk: Desk) -> None:
    spelled = '{ "publicip": "172.16.41.140",\n "Note": "caf\u00e9 \x1b" }'
    write_local_record(desk.path, PREFIX, subnet_name(FREE), spelled.replace("\x1b", "\\u001b"))
    assert r'Value         { "publicip": "172.16.41.140",\n "Note": "café \u001b" }' in desk.done("show", str(FREE))
    document = json.loads(desk.done("show", str(FREE), "--json"))
    assert document["value"] == spelled.replace("\x1b", "\\u001b")
    assert (document["subnet"], document["reservation"], document["ttl"]) == (str(FREE), True, None)
    assert document["ignored"] == "publishes backend type 'none', and ours is 'vxlan'"


@pytest.mark.parametrize("command", ["show", "release", "unreserve"])
def test_what_is_not_there_is_refused(desk: Desk, command: str) -> None:
    assert desk.refused(command, str(FREE)) == f"Error: there is no lease of {FREE} in local store {desk.path}\n"


@pytest.mark.parametrize("command", ["show", "release", "unreserve", "reserve"])
def test_record_that_cannot_be_read_is_refused_with_its_key(desk: Desk, command: str) -> None:
    write_local_record(desk.path, PREFIX, subnet_name(FREE), "{}}")
    assert f"{PREFIX}/subnets/{subnet_name(FREE)}" in desk.refused(command, str(FREE))


# Release


def test_release_asks_and_says_what_it_means(desk: Desk) -> None:
    said = desk.done("release", str(ONE), typed="y\n")
    assert f"{ONE} belongs to {HOST2}" in said
    assert "takes the subnet back within seconds" in said
    assert said.endswith(f"released {ONE}\n")
    assert set(desk.leases()) == {TWO}


@pytest.mark.parametrize("typed", ["n\n", ""])
def test_release_that_is_not_confirmed_does_nothing(desk: Desk, typed: str) -> None:
    result = desk.ask("release", str(ONE), typed=typed)
    assert result.exit_code == 1
    assert result.stderr == "Aborted!\n"
    assert set(desk.leases()) == {ONE, TWO}


def test_release_with_yes_asks_nothing(desk: Desk) -> None:
    assert "?" not in desk.done("release", str(ONE), "--yes")
    assert set(desk.leases()) == {TWO}


def test_reservation_is_released_only_by_force(desk: Desk) -> None:
    said = desk.refused("release", str(TWO), "--yes")
    assert said.startswith(f"Error: {TWO} is reserved for {HOST3}: --force ")
    desk.done("release", str(TWO), "--yes", "--force")
    assert set(desk.leases()) == {ONE}


def test_lease_that_changed_while_the_question_stood_is_not_released(desk: Desk) -> None:
    """The person at the keyboard takes a while; meanwhile the host writes its record."""

    async def update(store: LocalStore) -> None:
        lease = next(each for each in (await store.leases()).leases if each.subnet == ONE)
        await store.update(lease, ATTRS3, LEASE_TTL)

    class Keyboard(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            desk.visit(update)
            return super().read1(size)

    result = desk.ask("release", str(ONE), typed=Keyboard(b"y\n"))
    assert result.exit_code == 1
    assert "was changed or removed since it was read: nothing was done; look again" in result.stderr
    assert desk.leases()[ONE].attrs == ATTRS3


# Reserve and unreserve


def test_lease_becomes_a_reservation_and_a_lease_again_without_a_change_in_what_it_says(desk: Desk) -> None:
    value = f'{{ "PublicIP" : "{HOST2}" , "BackendType":"vxlan", "BackendData":{{"VtepMAC":"{MAC1}"}}}}'
    write_local_record(desk.path, PREFIX, subnet_name(ONE), value)
    for command, said, reservation in (
        ("unreserve", f"{ONE} is a lease now: it runs out in 24 hours unless {HOST2} renews it\n", False),
        ("unreserve", f"{ONE} is not reserved\n", False),
        ("reserve", f"reserved {ONE} for {HOST2}\n", True),
        ("reserve", f"reserved {ONE} for {HOST2}\n", True),
    ):
        assert desk.done(command, str(ONE)) == said
        assert desk.leases()[ONE].reservation == reservation
        assert (subnet_name(ONE), value, int(reservation)) in desk.raw()


def test_free_subnet_is_reserved_for_the_host_that_is_named(desk: Desk) -> None:
    assert desk.done("reserve", str(FREE), "--public-ip", "172.16.41.140") == f"reserved {FREE} for 172.16.41.140\n"
    made = desk.leases()[FREE]
    assert (made.attrs, made.reservation) == (Attrs(IPv4Address("172.16.41.140")), True)
    assert desk.done("reserve", str(FREE), "--public-ip", "172.16.41.140") == f"reserved {FREE} for 172.16.41.140\n"
    assert desk.leases()[FREE].modified == made.modified


def test_reservation_for_a_host_that_has_a_lease_comes_with_a_warning(desk: Desk) -> None:
    result = desk.ask("reserve", str(FREE), "--public-ip", HOST2)
    assert result.exit_code == 0
    assert result.stderr == f"warning: {HOST2} has {ONE} too, and keeps to that until it is released\n"
    assert FREE in desk.leases()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["10.2.42.0/24"], "10.2.42.0/24 is free: say with --public-ip for which host"),
        (["10.2.71.0/24", "--public-ip=172.16.41.140"], f"10.2.71.0/24 is taken: it belongs to {HOST2}"),
        (["10.3.42.0/24", "--public-ip=172.16.41.140"], "it lies outside the network 10.2.0.0/16"),
        (["10.2.42.0/25", "--public-ip=172.16.41.140"], "it does not fit"),
        (["10.2.42.0/24", "--public-ip=10.2.42.9"], "which lies in its own subnet"),
        (["10.2.42.0/24", "--public-ip=fd00::1"], "named by an IPv4 address"),
    ],
)
def test_reservation_that_would_be_of_no_use_is_refused(desk: Desk, arguments: list[str], why: str) -> None:
    assert why in desk.refused("reserve", *arguments)


def test_subnet_that_overlaps_another_s_is_not_reserved(desk: Desk) -> None:
    write_local_record(desk.path, PREFIX, "10.2.42.128-25", f'{{"PublicIP":"{HOST3}"}}')
    why = desk.refused("reserve", str(FREE), "--public-ip=172.16.41.140")
    assert "it overlaps 10.2.42.128/25, which is taken" in why


# What goes wrong


@pytest.mark.parametrize(
    "arguments",
    [
        ["shwo"],
        ["show"],
        ["show", "10.2.71.0"],
        ["show", "10.2.71.0/24,10.2.72.0/24"],
        ["show", "10.2.71.300-24"],
        ["release", "anything", "--yes"],
        ["reserve", "10.2.42.0/24", "--public-ip=host9"],
        ["reserve", "fd00:2::/64", "--public-ip=fd00::1%ens33"],
        ["list", "--nope"],
        ["--nope"],
    ],
)
def test_wrong_question_is_a_usage_error(desk: Desk, arguments: list[str]) -> None:
    result = desk.ask(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


def test_flags_of_flanneld_say_where_to_look(desk: Desk) -> None:
    desk.visit(lambda store: store.write_config("{}"))
    assert "/elsewhere/config" in desk.refused("--", "-etcd-prefix=/elsewhere")
    assert "/elsewhere/config" in desk.refused("show", str(ONE), "--", "-etcd-prefix=/elsewhere")


def test_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    result = Desk(tmp_path / "leases.db").ask()
    assert result.exit_code == 1
    assert (
        result.stderr == f"Error: there is no network configuration: {tmp_path}/leases.db: No such file or directory\n"
    )
    assert not list(tmp_path.iterdir())


def test_store_that_is_damaged_is_one_line(desk: Desk) -> None:
    desk.path.write_bytes(b"Sehr geehrte Damen und Herren, " * 1000)
    result = desk.ask("show", str(ONE))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_store_that_is_out_of_reach_is_one_line_without_secrets() -> None:
    environment = {"FLANNELD_ETCD_USERNAME": "ali", "FLANNELD_ETCD_PASSWORD": "sesame"}
    arguments = ["leases", "--no-defaults", "--", "-etcd-endpoints=http://baba:sesame@127.0.0.1:1"]
    result = CliRunner(env=environment).invoke(cli, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "sesame" not in result.stderr


def test_group_explains_itself_without_a_store() -> None:
    result = CliRunner().invoke(cli, ["leases", "--help"])
    assert result.exit_code == 0
    for command in ("list", "show", "release", "reserve", "unreserve"):
        assert f"  {command} " in result.stdout
