"""The sets by their names, from a checkout and from an installed package."""

import subprocess
import sys

import pytest

from bertkeras.datasets import QuestionExample, TextExample, TokenExample, shipped
from bertkeras.datasets.shipped import SPLITS, load_shipped, shipped_names, shipped_path
from bertkeras.errors import BertKerasError

KINDS = {"entities": TokenExample, "question-answering": QuestionExample}


@pytest.mark.parametrize("name", shipped_names())
def test_every_set_is_read_for_the_task_it_was_written_for(name):
    kind = KINDS.get(shipped.TASKS[name], TextExample)
    for split in SPLITS:
        found = load_shipped(name, split)
        assert found
        assert all(type(example) is kind for example in found)
    assert load_shipped("entailment", "dev")[0].pair is not None


def test_another_task_may_be_asked_for():
    assert {example.label for example in load_shipped("english-reviews", "dev", "multi-label")} == {
        ("positive",),
        ("negative",),
    }
    with pytest.raises(BertKerasError, match="has no place for the examples of entities"):
        load_shipped("english-reviews", "dev", "entities")


def test_unknown_names_say_what_there_is():
    with pytest.raises(BertKerasError, match="unknown set 'reviews'; the sets .* are english-reviews, chinese-reviews"):
        shipped_path("reviews", "train")
    with pytest.raises(BertKerasError, match="unknown split 'validation' of passages; choose one of train, dev, test"):
        shipped_path("passages", "validation")


def test_the_installed_copy_comes_before_the_checkout(tmp_path, monkeypatch):
    installed, checkout = tmp_path / "package" / "data", tmp_path / "data"
    monkeypatch.setattr(shipped, "_HOMES", (installed, checkout))
    with pytest.raises(BertKerasError, match="passages is missing.*install bertkeras again"):
        shipped_path("passages", "dev")
    for home in (checkout, installed):
        (home / "passages").mkdir(parents=True)
        (home / "passages" / "dev.json").touch()
        assert shipped_path("passages", "dev") == home / "passages" / "dev.json"


def test_reading_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys\n"
        "from bertkeras.datasets.shipped import load_shipped, shipped_names\n"
        "assert all(load_shipped(name, 'dev') for name in shipped_names())\n"
        "print([m for m in ('keras', 'tensorflow', 'torch', 'tokenizers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
