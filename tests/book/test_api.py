"""The API reference holds every public name of the package."""

import importlib
import re

import pytest

from tests.book.notebooks import BOOK

PARTS = ("", ".text", ".pipelines", ".layers", ".models", ".datasets", ".training")
SHOWN = set(re.findall(r"^\.\. auto\w+:: bertkeras\.(?:\w+\.)?(\w+)$", (BOOK / "api.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("part", PARTS)
def test_every_public_name_is_there(part):
    public = importlib.import_module(f"bertkeras{part}").__all__
    assert public
    assert set(public) - {"__version__"} <= SHOWN
