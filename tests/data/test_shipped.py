"""The sets by their names, from a checkout and from an installed package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bertkeras import BertMaskedLM
from bertkeras.datasets import QuestionExample, TextExample, TokenExample, shipped
from bertkeras.datasets.shipped import SPLITS, load_shipped, shipped_names, shipped_path
from bertkeras.errors import BertKerasError

DEMO = Path(__file__).parents[2] / "book" / "results" / "demo.json"
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
    monkeypatch.setattr(shipped, "SHIPPED", (installed, checkout))
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


def test_the_course_bert_is_that_of_the_record():
    """What ships is the model whose figures the book quotes, and it fills blanks better than the commonest word."""
    record = json.loads(DEMO.read_text(encoding="utf-8"))
    model = BertMaskedLM.from_preset("course-bert")
    assert model.model_card["metrics"]["mlm_loss"] == record["mlm_loss"]
    (found,) = model.fill_mask("The function [MASK] a new array.", top_k=3)
    assert "returns" in [filling.token for filling in found[0]]
