"""The iptables spelling: what is written for which present state.  Whole files are compared in tests/golden."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.firewall.iptables import (
    MAY_PRECEDE,
    Saved,
    compare,
    parse_save,
    payload,
    removal,
    render,
    repair,
    spell,
)
from pyflannel.firewall.rules import OWNED, RuleSet, rules
from tests.support.tables import Tables

NETWORK = IPv4Network("10.2.0.0/16")
BOTH = rules(NETWORK, IPv4Network("10.2.71.0/24"), masquerade=True, forward=True, random_fully=True)
PLAIN = rules(NETWORK, IPv4Network("10.2.71.0/24"), masquerade=False, forward=True, random_fully=True)
MASQUERADE = rules(NETWORK, IPv4Network("10.2.71.0/24"), masquerade=True, forward=False, random_fully=True)
NOTHING = rules(NETWORK, IPv4Network("10.2.71.0/24"), masquerade=False, forward=False, random_fully=True)
# One chain each, so that a test has one table to look at.
NOMASQ, FORWARD = (RuleSet(4, (chain,)) for chain in PLAIN.chains)

JUMP = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
NAT_JUMP = '-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG'
PLAIN_JUMP = '-m comment --comment "flanneld nomasq" -j FLANNEL-NOMASQ'
FILL = tuple(map(spell, FORWARD.chains[0].rules))
NAT_FILL = tuple(map(spell, MASQUERADE.chains[0].rules))
PLAIN_FILL = tuple(map(spell, NOMASQ.chains[0].rules))
REJECT = "-j REJECT --reject-with icmp-port-unreachable"
DOCKER_MASQUERADES = "-s 10.2.71.0/24 ! -o docker0 -j MASQUERADE"


def filter_table(*forward: str, fill: tuple[str, ...] | None = FILL, **others: tuple[str, ...]) -> Tables:
    """A filter table with these rules in FORWARD, and our chain filled as given or not there."""
    chains = {name.replace("_", "-"): found for name, found in others.items()} | {"FORWARD": forward}
    return Tables.holding("filter", chains | ({} if fill is None else {"FLANNEL-FWD": fill}))


def mended(tables: Tables, wanted: RuleSet = FORWARD) -> Tables:
    """``tables`` after the repair, which must be complete."""
    text = repair(tables.save(), wanted)
    assert text is not None
    tables.restore(text)
    assert repair(tables.save(), wanted) is None
    return tables


def texts(tables: Tables, wanted: RuleSet = FORWARD) -> list[str]:
    return [fault.text for fault in compare(parse_save(tables.save()), wanted)]


# Reading.


def test_save_is_read_by_table_and_chain_with_or_without_counters() -> None:
    text = (
        "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
        "*nat\n:POSTROUTING ACCEPT [3:180]\n:X - [0:0]\n[3:180] -A POSTROUTING -j X \nCOMMIT\n"
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n# Completed\n"
    )
    assert parse_save(text) == Saved(
        {
            ("nat", "POSTROUTING"): ("-j X",),
            ("nat", "X"): (),
            ("filter", "FORWARD"): ("-j ACCEPT", "-j DROP"),
        }
    )


def test_listing_of_one_table_is_read_too() -> None:
    text = f"-P FORWARD DROP\n-N FLANNEL-FWD\n-A FORWARD {JUMP}\n"
    assert parse_save(text, "filter") == Saved({("filter", "FORWARD"): (JUMP,), ("filter", "FLANNEL-FWD"): ()})


def test_spaces_inside_a_comment_are_kept() -> None:
    rule = '-m comment --comment "two  spaces" -j ACCEPT'
    assert parse_save(f"*filter\n-A FORWARD {rule}\n").rules("filter", "FORWARD") == (rule,)


@given(st.text() | st.lists(st.sampled_from(["*nat", ":A - [0:0]", "-A", "-A A", ":", "-N A", "*", "[0:0] -A A -j B"])))
def test_any_text_can_be_read(text: str | list[str]) -> None:
    parse_save(text if isinstance(text, str) else "\n".join(text))


# Repairing.


def test_nothing_is_written_when_all_is_right() -> None:
    tables = Tables()
    tables.restore(render(BOTH))
    assert repair(tables.save(), BOTH) is None


def test_nothing_is_written_when_nothing_is_wanted() -> None:
    assert repair("", NOTHING) is None


def test_first_payload_fits_both_an_unused_and_an_empty_table() -> None:
    assert repair("", BOTH) == repair(Tables().save(), BOTH) == render(BOTH)


def test_only_the_table_that_is_wrong_is_written() -> None:
    tables = mended(Tables(), BOTH)
    tables.tables["nat"]["FLANNEL-POSTRTG"].pop()
    text = repair(tables.save(), BOTH)
    assert text is not None
    assert text.startswith("*nat\n:FLANNEL-POSTRTG - [0:0]\n-F FLANNEL-POSTRTG\n")
    assert "filter" not in text
    assert "POSTROUTING" not in text


@pytest.mark.parametrize(
    ("fill", "text"),
    [
        (None, "FLANNEL-FWD is missing"),
        ((), "FLANNEL-FWD holds other rules than ours"),
        (FILL[:1], "FLANNEL-FWD holds other rules than ours"),
        (FILL[::-1], "FLANNEL-FWD holds other rules than ours"),
        ((*FILL, *FILL), "FLANNEL-FWD holds other rules than ours"),
        ((*FILL, "-j DROP"), "FLANNEL-FWD holds other rules than ours"),
        ((FILL[0].replace("10.2", "10.3"), FILL[1]), "FLANNEL-FWD holds other rules than ours"),
    ],
    ids=["chain gone", "flushed", "rule missing", "reordered", "duplicated", "extra rule", "old network"],
)
def test_chain_is_brought_to_exactly_our_rules_in_order(fill: tuple[str, ...] | None, text: str) -> None:
    tables = filter_table(*([] if fill is None else [JUMP]), fill=fill)
    assert texts(tables)[0] == text
    assert mended(tables).tables["filter"]["FLANNEL-FWD"] == list(FILL)


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        ([], "FORWARD does not lead to FLANNEL-FWD"),
        ([REJECT], "FORWARD does not lead to FLANNEL-FWD"),
        (["-j ACCEPT", REJECT, JUMP], "FORWARD leads too late or too early to FLANNEL-FWD"),
        ([JUMP, REJECT, JUMP], "FORWARD leads more than once to FLANNEL-FWD"),
        ([REJECT, JUMP, JUMP, JUMP], "FORWARD leads more than once to FLANNEL-FWD"),
    ],
    ids=["empty", "before a reject", "appended by Go flanneld", "twice", "three times, too late"],
)
def test_forward_leads_to_us_once_and_before_anything_that_could_drop(forward: list[str], text: str) -> None:
    tables = filter_table(*forward)
    assert texts(tables) == [text]
    others = [rule for rule in forward if rule != JUMP]
    assert mended(tables).tables["filter"]["FORWARD"] == [JUMP, *others]


@pytest.mark.parametrize("policy", sorted(MAY_PRECEDE["FORWARD"]))
def test_only_chains_that_hold_a_persons_policy_stay_before_us(policy: str) -> None:
    to_policy = f'-m comment --comment "theirs" -j {policy}'
    for forward in ([to_policy, REJECT], [JUMP, to_policy, REJECT], [to_policy, REJECT, JUMP]):
        tables = filter_table(*forward, **{policy: ()})
        assert mended(tables).tables["filter"]["FORWARD"] == [to_policy, JUMP, REJECT]


def test_a_policy_chain_further_down_does_not_pull_us_along() -> None:
    tables = filter_table(REJECT, "-j DOCKER-USER", DOCKER_USER=())
    assert mended(tables).tables["filter"]["FORWARD"] == [JUMP, REJECT, "-j DOCKER-USER"]


def test_a_chain_that_may_precede_us_elsewhere_may_not_here() -> None:
    tables = filter_table("-j cali-POSTROUTING", cali_POSTROUTING=())
    assert mended(tables).tables["filter"]["FORWARD"] == [JUMP, "-j cali-POSTROUTING"]


def nat_table(*postrouting: str, **chains: tuple[str, ...]) -> Tables:
    """A nat table with these rules in POSTROUTING, and these chains."""
    found = {name.replace("_", "-"): fill for name, fill in chains.items()}
    return Tables.holding("nat", {"POSTROUTING": postrouting} | found)


@pytest.mark.parametrize(
    ("postrouting", "text"),
    [
        ([], "POSTROUTING does not lead to FLANNEL-NOMASQ"),
        ([DOCKER_MASQUERADES], "POSTROUTING does not lead to FLANNEL-NOMASQ"),
        ([DOCKER_MASQUERADES, PLAIN_JUMP], "POSTROUTING leads too late or too early to FLANNEL-NOMASQ"),
        ([PLAIN_JUMP, DOCKER_MASQUERADES, PLAIN_JUMP], "POSTROUTING leads more than once to FLANNEL-NOMASQ"),
    ],
    ids=["empty", "before ours were there", "inserted by Docker as it started", "twice"],
)
def test_remote_containers_are_spared_before_docker_masquerades(postrouting: list[str], text: str) -> None:
    tables = nat_table(*postrouting, FLANNEL_NOMASQ=PLAIN_FILL)
    assert texts(tables, NOMASQ) == [text]
    others = [rule for rule in postrouting if rule != PLAIN_JUMP]
    assert mended(tables, NOMASQ).tables["nat"]["POSTROUTING"] == [PLAIN_JUMP, *others]


def test_calico_keeps_its_first_place_in_postrouting() -> None:
    calico = '-m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING'
    for postrouting in ([calico, DOCKER_MASQUERADES], [PLAIN_JUMP, calico, DOCKER_MASQUERADES]):
        tables = nat_table(*postrouting, cali_POSTROUTING=(), FLANNEL_NOMASQ=PLAIN_FILL)
        assert mended(tables, NOMASQ).tables["nat"]["POSTROUTING"] == [calico, PLAIN_JUMP, DOCKER_MASQUERADES]


def test_a_policy_chain_of_forward_may_not_precede_us_in_postrouting() -> None:
    tables = nat_table("-j DOCKER-USER", DOCKER_USER=(), FLANNEL_NOMASQ=PLAIN_FILL)
    assert mended(tables, NOMASQ).tables["nat"]["POSTROUTING"] == [PLAIN_JUMP, "-j DOCKER-USER"]


def test_turning_masquerading_on_or_off_leaves_nothing_of_the_other_way() -> None:
    tables = nat_table(DOCKER_MASQUERADES)
    for wanted, postrouting in (
        (PLAIN, [PLAIN_JUMP, DOCKER_MASQUERADES]),
        (BOTH, [DOCKER_MASQUERADES, NAT_JUMP]),
        (PLAIN, [PLAIN_JUMP, DOCKER_MASQUERADES]),
        (MASQUERADE, [DOCKER_MASQUERADES, NAT_JUMP]),
    ):
        mended(tables, wanted)
        assert tables.tables["nat"]["POSTROUTING"] == postrouting
        assert tables.tables["filter"]["FORWARD"] == [JUMP]
        ours = {name for name in tables.tables["nat"] if name.startswith("FLANNEL")}
        assert ours == {chain.name for chain in wanted.chains if chain.table == "nat"}


def test_who_wants_nothing_leaves_everything_as_it_is() -> None:
    for before in (BOTH, PLAIN):
        assert repair(mended(Tables(), before).save(), NOTHING) is None


def test_postrouting_leads_to_us_once_and_wherever_it_stood() -> None:
    for before, after in (
        (["-j RETURN"], ["-j RETURN", NAT_JUMP]),
        ([NAT_JUMP, "-j RETURN", NAT_JUMP], ["-j RETURN", NAT_JUMP]),
    ):
        tables = nat_table(*before, FLANNEL_POSTRTG=NAT_FILL)
        assert mended(tables, MASQUERADE).tables["nat"]["POSTROUTING"] == after
    for right in ([NAT_JUMP, "-j RETURN"], ["-j RETURN", NAT_JUMP]):
        tables = nat_table(*right, FLANNEL_POSTRTG=NAT_FILL)
        assert repair(tables.save(), MASQUERADE) is None


# Removing.


@pytest.mark.parametrize("wanted", [BOTH, PLAIN], ids=["masquerading", "not masquerading"])
def test_clean_up_leaves_nothing_of_ours_and_everything_else(wanted: RuleSet) -> None:
    tables = filter_table(REJECT, "-j DOCKER-USER", DOCKER_USER=("-i eth0 -j FLANNEL-FWD", "-j RETURN"))
    before = filter_table(REJECT, "-j DOCKER-USER", fill=None, DOCKER_USER=("-j RETURN",)).save()
    mended(tables, wanted).restore(payload(removal(parse_save(tables.save()))))
    assert tables.save() == before
    assert removal(parse_save(tables.save())) == ()


def test_clean_up_knows_every_chain_of_ours() -> None:
    tables = Tables()
    for table, name in OWNED:
        tables.tables[table][name] = ["-j RETURN"]
    tables.restore(payload(removal(parse_save(tables.save()))))
    assert tables.save() == Tables().save()


def test_clean_up_of_one_chain_leaves_the_other() -> None:
    tables = mended(Tables(), BOTH)
    tables.restore(payload(removal(parse_save(tables.save()), [("nat", "FLANNEL-POSTRTG")])))
    assert compare(parse_save(tables.save()), FORWARD) == ()
    assert "FLANNEL-POSTRTG" not in tables.save()


def test_a_comment_that_mentions_our_chain_does_not_lead_to_it() -> None:
    tables = mended(filter_table('-m comment --comment "see -j FLANNEL-FWD for more" -j ACCEPT'))
    tables.restore(payload(removal(parse_save(tables.save()))))
    assert tables.tables["filter"]["FORWARD"] == ['-m comment --comment "see -j FLANNEL-FWD for more" -j ACCEPT']


# Laws.

NAT_FOREIGN = st.sampled_from([DOCKER_MASQUERADES, "-j cali-POSTROUTING", "-j RETURN", "-d 10.2.0.0/16 -j ACCEPT"])
NAT_CHAINS = {"FLANNEL-NOMASQ": (PLAIN_JUMP, PLAIN_FILL), "FLANNEL-POSTRTG": (NAT_JUMP, NAT_FILL)}


@given(
    st.sampled_from([BOTH, PLAIN, MASQUERADE]),
    st.lists(NAT_FOREIGN | st.sampled_from([PLAIN_JUMP, NAT_JUMP]), max_size=6),
    st.fixed_dictionaries({}, optional={name: st.sampled_from([(), fill]) for name, (_, fill) in NAT_CHAINS.items()}),
)
def test_repair_leads_from_either_way_of_masquerading_to_the_one_wanted_and_touches_nothing_foreign(
    wanted: RuleSet, postrouting: list[str], ours: dict[str, tuple[str, ...]]
) -> None:
    gone = {jump for name, (jump, _) in NAT_CHAINS.items() if name not in ours}
    postrouting = [rule for rule in postrouting if rule not in gone]
    tables = Tables.holding("nat", {"POSTROUTING": postrouting, "cali-POSTROUTING": ["-j RETURN"], **ours})
    text = repair(tables.save(), wanted)
    if text is not None:
        tables.restore(text)
    assert repair(tables.save(), wanted) is None
    held = tables.tables["nat"]
    (chain,) = (chain for chain in wanted.chains if chain.table == "nat")
    assert [name for name in NAT_CHAINS if name in held] == [chain.name]
    assert held[chain.name] == list(NAT_CHAINS[chain.name][1])
    jumps = {PLAIN_JUMP, NAT_JUMP}
    assert [rule for rule in held["POSTROUTING"] if rule in jumps] == [NAT_CHAINS[chain.name][0]]
    assert [rule for rule in held["POSTROUTING"] if rule not in jumps] == [
        rule for rule in postrouting if rule not in jumps
    ]
    if chain.first:
        assert set(held["POSTROUTING"][: held["POSTROUTING"].index(PLAIN_JUMP)]) <= {"-j cali-POSTROUTING"}


FOREIGN = st.sampled_from([REJECT, "-j DOCKER-USER", "-j ACCEPT", "-s 10.2.0.0/16 -j DROP"])
FORWARDS = st.lists(FOREIGN | st.just(JUMP), max_size=6)


@given(FORWARDS, st.none() | st.lists(st.sampled_from([*FILL, "-j DROP"]), max_size=4))
def test_repair_leads_anywhere_to_the_same_rules_and_touches_nothing_foreign(
    forward: list[str], fill: list[str] | None
) -> None:
    if fill is None:
        forward = [rule for rule in forward if rule != JUMP]
    tables = filter_table(*forward, fill=None if fill is None else tuple(fill), DOCKER_USER=("-j RETURN",))
    text = repair(tables.save(), FORWARD)
    if text is not None:
        tables.restore(text)
    assert repair(tables.save(), FORWARD) is None
    held = tables.tables["filter"]
    assert held["FLANNEL-FWD"] == list(FILL)
    assert held["FORWARD"].count(JUMP) == 1
    assert [rule for rule in held["FORWARD"] if rule != JUMP] == [rule for rule in forward if rule != JUMP]
    assert set(held["FORWARD"][: held["FORWARD"].index(JUMP)]) <= {"-j DOCKER-USER"}
    assert held["DOCKER-USER"] == ["-j RETURN"]
