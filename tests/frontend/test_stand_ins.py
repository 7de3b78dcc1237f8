"""That a stand-in is as good as what it stands for, which is imported when it is asked for more."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

import frontend.stand_ins
from frontend.stand_ins import STAND_INS, StandIn, put_in_place, spec_of, unmarked


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    monkeypatch.delitem(sys.modules, "xml.dom", raising=False)
    spec = spec_of("xml.dom")
    assert spec is not None
    monkeypatch.setitem(sys.modules, "xml.dom", made := StandIn(spec, {"given": 1}))
    return made


def test_a_stand_in_is_there_until_it_is_asked_for_more(stand_in):
    from xml.dom import given

    assert given == 1
    assert sys.modules["xml.dom"] is stand_in
    assert stand_in.INDEX_SIZE_ERR == 1  # of the real module
    assert sys.modules["xml.dom"] is not stand_in
    assert stand_in.Node is sys.modules["xml.dom"].Node
    assert not hasattr(stand_in, "nothing")


def test_parts_of_what_it_stands_for_can_be_imported(stand_in, monkeypatch):
    from xml.dom.NodeFilter import NodeFilter

    assert NodeFilter.FILTER_ACCEPT == 1
    monkeypatch.delitem(sys.modules, "xml.dom.domreg", raising=False)
    assert stand_in.domreg.__name__ == "xml.dom.domreg"
    assert sys.modules["xml.dom"] is stand_in


def test_where_a_module_is_takes_no_import(monkeypatch):
    monkeypatch.delitem(sys.modules, "wsgiref", raising=False)
    assert spec_of("wsgiref.util").origin.endswith("util.py")
    assert "wsgiref" not in sys.modules
    assert spec_of("wsgiref.nothing") is spec_of("nothing.util") is None


def test_what_is_not_installed_has_no_stand_in(monkeypatch):
    monkeypatch.setattr(frontend.stand_ins, "STAND_INS", {"nothing.at_all": {}})
    put_in_place()
    assert "nothing.at_all" not in sys.modules


def test_a_stand_in_of_a_library_knows_its_version():
    assert StandIn(spec_of("transformers"), {}).__version__ == version("transformers")


@pytest.mark.parametrize("name", STAND_INS["torch._dynamo"])
def test_decorators_with_and_without_options(name):
    def function() -> int:
        return 1

    decorator = STAND_INS["torch._dynamo"][name]
    assert decorator is unmarked
    assert decorator(function) is function
    assert decorator(function, True, wrapping=False) is function
    assert decorator(recursive=False)(function) is function
