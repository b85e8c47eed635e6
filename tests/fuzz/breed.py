"""Where hostile input comes from: real texts, what an attacker would put in their place, and accidents of all kinds.

Everything is drawn from the ``random.Random`` that is passed in: the same seed breeds the same inputs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

from pyflannel.lease.fields import JSON
from tests.support.hostile import OLD, YOUNG, Record

T = TypeVar("T")

NETS4: Final = (
    *(
        "10.2.41.0-24",
        "10.2.41.0-25",
        "10.2.41.128-25",
        "10.2.40.0-23",
        "10.2.71.0-24",
        "10.2.71.128-25",
        "10.2.70.0-23",
    ),
    *("10.2.0.0-16", "10.2.0.0-17", "10.2.128.0-17", "10.0.0.0-8", "10.2.0.0-24", "10.2.255.0-24", "10.2.9.0-24"),
    *("0.0.0.0-0", "0.0.0.0-1", "128.0.0.0-1", "8.0.0.0-6", "192.168.0.0-24", "172.16.41.0-24", "172.16.41.131-31"),
    *("224.0.0.0-4", "127.0.0.0-8", "169.254.0.0-16", "255.255.255.254-31", "10.2.41.130-31", "10.2.200.0-24"),
    *("10.41.0.0-24", "10.41.0.0-16", "10.71.0.0-24", "10.2.41.132-31", "10.3.0.0-24", "10.2.41.7-24", "10.2.41.0-32"),
    *("10.2.41.0-024", "010.2.41.0-24", "10.2.41.0-33", "10.2.41.256-24", "10.2.41.0-", "10.2.41.0-24hi"),
)
NETS6: Final = (
    *("fd00:2:0:41::-64", "fd00:2:0:71::-64", "fd00:2:0:40::-60", "fd00:2::-48", "fd00:3::-64", "::-0", "::-1"),
    *("fd00:2:0:7::-64", "fd00:2:0:41:8000::-65", "fe80::-64", "ff02::-16", "::1-127", "FD00:2:0:41::-64"),
    *("fd00:2:0:0041::-64", "fd00:2:0:41::1-64", "2001:db8::-64", "::ffff:10.2.41.0-120", "fd00:2:0:41::-128"),
)
HOSTS4: Final = (
    *("172.16.41.140", "172.16.41.141", "172.16.41.132", "172.16.41.131", "10.2.41.5", "10.2.71.9", "10.2.9.1"),
    *("10.2.41.131", "10.2.41.132", "10.2.41.140", "10.41.0.5", "0.0.0.0", "0.0.0.1", "127.0.0.1", "224.0.0.1"),
    *("239.255.255.255", "255.255.255.255", "240.0.0.1", "169.254.1.1", "fd00:2:0:41::5", "", "1.2.3", "1.2.3.4.5"),
    *("1.2.3.04", "0x7f.1", "2130706433", "1.2.3.4/24", " 1.2.3.4", "١.٢.٣.٤", "172.16.41.140\0", "localhost"),
)
HOSTS6: Final = (
    *("2001:db8::140", "2001:db8::131", "2001:db8::132", "fd00:2:0:41::5", "fd00:2:0:71::9", "::", "::1", "fe80::1"),
    *(
        "fe80::1%eth0",
        "ff02::1",
        "::ffff:172.16.41.140",
        "::127.0.0.1",
        "172.16.41.140",
        "2001:db8::1::2",
        "64:ff9b::1",
    ),
)
MACS: Final = (
    *("02:00:00:09:00:01", "02:00:00:09:00:02", "02:00:00:01:04:01", "02:00:00:01:04:02", "02:00:00:01:06:01"),
    *("02:00:00:00:00:01", "02:00:00:00:06:01", "02-00-00-09-00-03", "0200.0009.0004", "02:00:00:09:00:0A"),
    *(
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "01:00:5e:00:00:01",
        "33:33:00:00:00:01",
        "02:00:00",
        "",
        "zz:00:00:00:00:01",
    ),
    *("02:00:00:09:00:01:02:03", "02:00:00:09:00:01\n", "０２:00:00:09:00:01"),
)
TYPES: Final = (
    *["vxlan"] * 20,
    "VXLAN",
    "host-gw",
    "udp",
    "",
    "ipip",
    "wireguard",
    "extension",
    "vx\nlan",
)
NUMBERS: Final = (
    *(
        "0",
        "1",
        "1",
        "1",
        "-1",
        "2",
        "70000",
        "4464",
        "16777215",
        "16777216",
        "4294967297",
        "1.0",
        "1e0",
        "1e400",
        "-0",
    ),
    *("0.1", "9" * 30, "9" * 4300, "9" * 4301, "NaN", "Infinity", "-Infinity", "01", "+1", "0x1", "1_0", ".5", "5."),
)
CONSTANTS: Final = ("null", "true", "false", "{}", "[]", '""', "NULL", "True", "undefined", "'x'", "nul")
TOKENS: Final = (
    *(
        '"',
        "\\",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\\u0000",
        "\\ud800",
        "\\udc00\\ud800",
        "\\u0050",
        "\0",
        "\n",
        "\r",
        "\t",
    ),
    *(
        "\x1b[2J",
        "\u2028",
        "\u202e",
        "\ufeff",
        "é",
        "\U0001f600",
        "null",
        "NaN",
        "-",
        ".",
        "e",
        "9" * 20,
        " ",
        "/",
        "&",
    ),
    *(
        '"PublicIP"',
        '"publicip"',
        '"PUBLICIP"',
        '"ſubnetLen"',
        '"BackendData"',
        '"VtepMAC"',
        "10.2.71.0",
        "%s%n",
        "../",
    ),
)
NETWORKS: Final = (
    *(
        "10.2.0.0/16",
        "10.0.0.0/8",
        "10.2.0.0/24",
        "10.2.0.0/28",
        "10.2.0.0/29",
        "10.2.3.4/16",
        "0.0.0.0/0",
        "0.0.0.0/1",
    ),
    *("127.0.0.0/8", "224.0.0.0/4", "255.255.255.0/24", "240.0.0.0/8", "169.254.0.0/16", "1.2.3.4/32", "10.2.0.0/33"),
    *("10.2.0.0", "10.2.0.0/", "/16", "10.2.0.0/-1", "10.2.0.0/16/16", "10.2.0.0/255.255.0.0", "fd00:2::/48", "", "x"),
    *("192.168.0.0/16", "172.16.0.0/12", "128.0.0.0/1", "64.0.0.0/2", "10.2.0.0/٢", "10.2.0.0/016", "10.2.0.0/9999"),
)
NETWORKS6: Final = (
    *("fd00:2::/48", "fc00::/48", "fd00::/8", "fd00:2::/124", "fd00:2::/125", "::/0", "::/1", "fe80::/10", "ff00::/8"),
    *(
        "fd00:2::1/48",
        "10.2.0.0/16",
        "fd00:2::%eth0/48",
        "::ffff:10.2.0.0/112",
        "2001:db8::/32",
        "fd00:2::/129",
        "x/64",
    ),
)
BOUNDS: Final = (
    "10.2.5.0",
    "10.2.250.0",
    "10.2.0.0",
    "10.3.0.0",
    "0.0.0.0",
    "10.2.5.1",
    "10.2.5.0/24",
    "fd00:2:0:5::",
    "::",
)
LENGTHS: Final = ("24", "24", "0", "16", "18", "30", "31", "32", "64", "126", "128", "-1", "24.0", "1e1", "99999999999")
BACKENDS: Final = ("VXLAN", "vXlAn", "udp", "host-gw", "", "vxlan ", "x" * 65, "\u0130", "vx\nlan")


class Breeder:
    """Draws inputs: some made up, some of the corpus with something done to them."""

    def __init__(self, seed: str, records: Sequence[Record], configs: Sequence[bytes]) -> None:
        self.rng = random.Random(seed)
        self._records, self._configs = records, configs

    def records(self, most: int = 8) -> list[Record]:
        """What one attacker writes, or several."""
        return [self.record() for _ in range(self.rng.randint(1, most))]

    def record(self) -> Record:
        """A name and a value."""
        rng, pick = self.rng, self.rng.random()
        created = OLD if rng.random() < 0.1 else YOUNG + rng.randrange(50)
        if pick < 0.55 or not self._records:
            return Record(self._name().encode(), self._value().encode(errors="surrogatepass"), created)
        known = rng.choice(self._records)
        if pick < 0.65:
            return Record(self._name().encode(), known.value, created)
        if pick < 0.95:
            name = known.name if rng.random() < 0.5 else self.harmed(known.name)
            return Record(name, self.harmed(known.value), created)
        return Record(self.noise(20), self.noise(200), created)

    def config(self) -> str:
        """The text of a network configuration, as a store hands it on."""
        rng, pick = self.rng, self.rng.random()
        if pick < 0.55 or not self._configs:
            return self._config()
        if pick < 0.95:
            return self.harmed(rng.choice(self._configs)).decode(errors="replace")
        return self.noise(200).decode(errors="replace")

    def harmed(self, data: bytes) -> bytes:
        """``data`` after one accident or several; if it is JSON, perhaps with another value in the place of one."""
        if self.rng.random() < 0.3:
            return self._transplanted(data)
        for _ in range(self.rng.choice((1, 1, 1, 2, 3, 6))):
            data = self._accident(data)
        return data

    def noise(self, longest: int) -> bytes:
        """Anything."""
        return self.rng.randbytes(self.rng.randrange(longest))

    def _transplanted(self, data: bytes) -> bytes:
        try:
            root: JSON = json.loads(data)
        except (ValueError, RecursionError):
            return self._accident(data)
        place = root
        while isinstance(place, list | dict) and place:
            keys: list[int | str] = [*range(len(place))] if isinstance(place, list) else [*place]
            key, inner = self.rng.choice(keys), cast(dict[int | str, JSON], place)
            if not isinstance(inner[key], list | dict) or self.rng.random() < 0.3:
                inner[key] = "\0"
                break
            place = inner[key]
        return json.dumps(root).replace(r'"\u0000"', self._anything(0), 1).encode(errors="surrogatepass")

    def _accident(self, data: bytes) -> bytes:
        rng = self.rng
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 32)))
        match rng.randrange(8):
            case 0:
                return data[:at] + data[end:]
            case 1:
                return data[:at] + rng.choice(TOKENS).encode() + data[at:]
            case 2:
                return data[:at] + rng.choice(TOKENS).encode() + data[end:]
            case 3:
                return data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
            case 4:
                return data[:at] + data[at:end] * rng.choice((2, 3, 50)) + data[end:]
            case 5:
                return data[:at] + data[at:end].swapcase() + data[end:]
            case 6:
                other = rng.randrange(len(data) + 1)
                return data[:at] + data[other:]
            case _:
                return data[:at]

    def _one(self, usual: Callable[[], T], pool: Sequence[T], strange: float = 0.5) -> T:
        return self.rng.choice(pool) if self.rng.random() < strange else usual()

    def _name(self) -> str:
        rng = self.rng
        name = self._one(lambda: f"10.2.{rng.randrange(256)}.0-24", NETS4, 0.4)
        if rng.random() < 0.3:
            name += "&" + self._one(lambda: f"fd00:2:0:{rng.randrange(1, 99)}::-64", NETS6, 0.3)
        if rng.random() < 0.02:
            name = rng.choice(("old/", "/", "subnets/", " ", "&")) + name
        return name

    def _value(self) -> str:
        rng = self.rng
        members = [("PublicIP", self._host4())]
        if rng.random() < 0.7:
            members.append(("PublicIPv6", self._host6() if rng.random() < 0.5 else "null"))
        if rng.random() < 0.95:
            members.append(("BackendType", json.dumps(rng.choice(TYPES))))
        for key in ("BackendData", "BackendV6Data"):
            if rng.random() < 0.85:
                members.append((key, self._data()))
        return self._object(members)

    def _host4(self) -> str:
        return json.dumps(self._one(lambda: f"172.16.41.{self.rng.randrange(132, 255)}", HOSTS4, 0.2))

    def _host6(self) -> str:
        return json.dumps(self._one(lambda: f"2001:db8::{self.rng.randrange(132, 255)}", HOSTS6, 0.1))

    def _data(self) -> str:
        rng = self.rng
        if rng.random() < 0.05:
            return self._anything(0)
        members = [("VtepMAC", json.dumps(self._one(lambda: f"02:00:00:09:00:{rng.randrange(256):02x}", MACS, 0.2)))]
        if rng.random() < 0.8:
            members.insert(0, ("VNI", self._one(lambda: rng.choice(("1", "1", "1", "70000")), NUMBERS, 0.1)))
        return self._object(members)

    def _config(self) -> str:
        rng = self.rng
        members = [("Network", json.dumps(self._one(lambda: NETWORKS[0], NETWORKS, 0.3)))]
        for key in ("SubnetLen", "IPv6SubnetLen"):
            if rng.random() < 0.2:
                members.append((key, rng.choice(LENGTHS)))
        for key in ("SubnetMin", "SubnetMax", "IPv6SubnetMin", "IPv6SubnetMax"):
            if rng.random() < 0.1:
                members.append((key, json.dumps(rng.choice(BOUNDS))))
        for key in ("EnableIPv4", "EnableIPv6", "EnableNFTables"):
            if rng.random() < 0.3:
                members.append((key, self._one(lambda: "true", CONSTANTS, 0.3)))
        if rng.random() < 0.5:
            members.append(("IPv6Network", json.dumps(self._one(lambda: NETWORKS6[0], NETWORKS6, 0.3))))
        if rng.random() < 0.95:
            members.append(("Backend", self._backend()))
        return self._object(members)

    def _backend(self) -> str:
        rng = self.rng
        members = [("Type", json.dumps(self._one(lambda: "vxlan", BACKENDS, 0.1)))]
        for key in ("VNI", "Port", "MTU"):
            if rng.random() < 0.3:
                members.append((key, self._one(lambda: str(rng.randrange(70000)), NUMBERS, 0.3)))
        for key in ("GBP", "Learning", "DirectRouting", "Name", "Prot"):
            if rng.random() < 0.2:
                members.append((key, self._one(lambda: "true", CONSTANTS, 0.3)))
        return self._object(members)

    def _object(self, members: list[tuple[str, str]]) -> str:
        """The text of an object; now and then with keys in another case or twice, values of other kinds, and spaces."""
        rng = self.rng
        if rng.random() < 0.05:
            at = rng.randrange(len(members))
            members[at] = (members[at][0], self._anything(0))
        if rng.random() < 0.1:
            key, value = rng.choice(members)
            members.insert(rng.randrange(len(members) + 1), (rng.choice((key, key.lower(), key.upper())), value))
        if rng.random() < 0.1:
            members = [(rng.choice((key.lower(), key.upper(), key.title())), value) for key, value in members]
        if rng.random() < 0.1:
            rng.shuffle(members)
        if rng.random() < 0.1:
            members.append((rng.choice(("Future", "", "\\u0050ublicIP", "\\ud800", "PublicIP ")), self._anything(0)))
        colon, comma = rng.choice(((":", ","),) * 9 + ((" : ", " ,\n\t"),))
        return "{" + comma.join(f'"{key}"{colon}{value}' for key, value in members) + "}"

    def _anything(self, depth: int) -> str:
        """Some JSON value, or what looks like one."""
        rng, pick = self.rng, self.rng.randrange(12)
        if pick == 0 and depth < 4:
            return "[" + ",".join(self._anything(depth + 1) for _ in range(rng.randrange(4))) + "]"
        if pick == 1 and depth < 4:
            return "{" + ",".join(f'"{key}":{self._anything(depth + 1)}' for key in "abc"[: rng.randrange(4)]) + "}"
        if pick == 2 and rng.random() < 0.1:
            deep = rng.choice((60, 64, 65, 200, 1000, 20000))
            return rng.choice(('{"x":', "[")) * deep + rng.choice(("", "]" * deep))
        if pick == 3 and rng.random() < 0.02:
            return '"' + "y" * rng.choice((65, 300, 60_000, 65_536)) + '"'
        if pick < 7:
            return rng.choice(NUMBERS)
        if pick < 9:
            return rng.choice(CONSTANTS)
        return '"' + "".join(rng.choice(TOKENS) for _ in range(rng.randrange(4))) + '"'
