"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import bertkeras

MODULES = ["bertkeras", *sorted(module.name for module in pkgutil.walk_packages(bertkeras.__path__, "bertkeras."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    try:
        module = importlib.import_module(name)
        results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    except ImportError as error:
        if (error.name or "bertkeras").startswith("bertkeras"):
            raise
        pytest.skip(f"{name} needs {error.name}, which is not installed")
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test
        for name in ("bertkeras.config", "bertkeras.models.backbone")
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert len(found) >= 2
