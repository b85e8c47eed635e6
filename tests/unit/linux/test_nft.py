from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyflannel.linux.nft import Nft, NoNft, Run
from pyflannel.linux.run import CommandMissing, CommandTimeout, Completed
from pyflannel.linux.xtables import FirewallError
from tests.support.loops import run
from tests.support.namespaces import Namespace
from tests.support.programs import inside


def answering(status: int, out: str = "", err: str = "") -> Run:
    async def tool(argv: Sequence[str], stdin: str | None) -> Completed:
        return Completed(tuple(argv), status, out, err)

    return tool


def failing(error: Exception) -> Run:
    async def tool(argv: Sequence[str], stdin: str | None) -> Completed:
        raise error

    return tool


@pytest.mark.needs("root", "netns", "nft")
def test_scripts_are_carried_out_whole_or_not_at_all_and_tables_are_read_back() -> None:
    with Namespace("nft") as space:
        nft = Nft(inside(space))
        assert run(nft.tables()) == ()
        assert run(nft.listing("mine")) is None
        run(nft.carry_out("add table inet mine\nadd table ip theirs\n"))
        with pytest.raises(FirewallError, match=r"nft -f -: .*No such file"):
            run(nft.carry_out("add table inet second\ndelete table inet third\n"))
        assert run(nft.tables()) == ("mine",)
        assert '"mine"' in (run(nft.listing("mine")) or "")


def test_a_host_without_nft_is_told_from_one_that_refuses() -> None:
    with pytest.raises(NoNft, match="running nft: not there"):
        run(Nft(failing(CommandMissing("running nft: not there"))).tables())
    with pytest.raises(FirewallError, match="did not finish") as caught:
        run(Nft(failing(CommandTimeout("nft did not finish"))).carry_out(""))
    assert not isinstance(caught.value, NoNft)


@pytest.mark.parametrize(("err", "said"), [("Error: no\nmore of it\n", "Error: no$"), ("", "exit status 1$")])
def test_a_refusal_has_the_tools_first_words(err: str, said: str) -> None:
    nft = Nft(answering(1, err=err))
    with pytest.raises(FirewallError, match=f"nft -f -: {said}"):
        run(nft.carry_out("x"))
    with pytest.raises(FirewallError, match=said):
        run(nft.listing("x"))
    with pytest.raises(FirewallError, match=said):
        run(nft.tables())
