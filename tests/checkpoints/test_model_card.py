import json

import pytest

from bertkeras.checkpoints.model_card import CARD_FILE, WRITTEN_HERE, model_card
from bertkeras.models import (
    BertBackbone,
    BertMaskedLM,
    BertPretrainer,
    BertQuestionAnswerer,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from tests.checks import small_config, small_tokenizer

TOLD = {
    "data": {"corpus": "novels | plays\n(two shelves)", "documents": 12_345, "shuffled": True},
    "metrics": {"mlm_loss": 2.34567, "rows": 1_000_003, "note": "best\r\nof | three"},
    "command": "bertkeras pretrain --corpus novels/ \\\n  --output run  # ```",
}
CARD = """\
---
library_name: bertkeras
tags:
- bert
- bertkeras
---

<!-- written by bertkeras; remove this line to keep the file as it is -->

# BertMaskedLM

| what |  |
|---|---|
| class | BertMaskedLM |
| parameters | 6,657 |
| encoder blocks | 2 |
| width | 21 |
| attention heads | 3 |
| feed-forward width | 13 |
| longest row | 11 |
| vocabulary | 37 |

## Data

| what |  |
|---|---|
| corpus | novels \\| plays (two shelves) |
| documents | 12,345 |
| shuffled | True |

## Held-out figures

| metric | value |
|---|---|
| mlm_loss | 2.346 |
| rows | 1,000,003 |
| note | best of \\| three |

## How it was made

````sh
bertkeras pretrain --corpus novels/ \\
  --output run  # ```
````

## Use

```python
from bertkeras import BertMaskedLM

model = BertMaskedLM.from_preset("path of this folder")
```
"""


def told(cls, **options):
    model = cls(small_config(), **options)
    model.model_card = json.loads(json.dumps(TOLD))
    return model


def test_the_whole_card(tmp_path):
    model = told(BertMaskedLM)
    assert model.count_params() == 6657
    model.save_to_preset(tmp_path)
    assert (tmp_path / CARD_FILE).read_text(encoding="utf-8") == CARD


def test_a_card_that_has_nothing_to_tell(tmp_path):
    BertBackbone(small_config()).save_to_preset(tmp_path)
    text = (tmp_path / CARD_FILE).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# BertBackbone", "## Use"]


LIBRARIES = [
    (BertBackbone, {}, "AutoModel"),
    (BertPretrainer, {}, "AutoModelForPreTraining"),
    (BertPretrainer, {"next_sentence": False}, "AutoModelForMaskedLM"),
    (BertMaskedLM, {}, "AutoModelForMaskedLM"),
    (BertTextClassifier, {"num_classes": 3}, "AutoModelForSequenceClassification"),
    (BertTokenClassifier, {"num_classes": 3}, "AutoModelForTokenClassification"),
    (BertQuestionAnswerer, {}, "AutoModelForQuestionAnswering"),
    (BertTextEmbedder, {}, None),
]


@pytest.mark.parametrize(("cls", "options", "auto"), LIBRARIES)
def test_the_front_matter_and_the_code_of_an_export(cls, options, auto, tmp_path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    told(cls, **options).save_to_hugging_face(tmp_path)
    text = (tmp_path / CARD_FILE).read_text(encoding="utf-8")
    _, front, rest = text.split("---\n", 2)
    library = "transformers" if auto else "sentence-transformers"
    assert yaml.safe_load(front) == {"library_name": library, "tags": ["bert", "bertkeras"]}
    code = f"from transformers import {auto}\n\nmodel = {auto}.from_pretrained("
    assert (code if auto else 'import SentenceTransformer\n\nmodel = SentenceTransformer("') in rest
    assert CARD[CARD.index("## Data") : CARD.index("## Use")] in rest


def test_it_comes_back(tmp_path):
    told(BertPretrainer, tokenizer=small_tokenizer()).save_to_preset(tmp_path / "preset")
    model = BertMaskedLM.from_preset(tmp_path / "preset")
    assert model.model_card == TOLD
    model.save_to_hugging_face(tmp_path / "export")
    assert "## Held-out figures" in (tmp_path / "export" / CARD_FILE).read_text(encoding="utf-8")
    model.model_card["data"]["documents"] = 7
    assert TOLD["data"]["documents"] == 12_345


@pytest.mark.parametrize("save", ["save_to_preset", "save_to_hugging_face"])
def test_a_card_written_by_hand_stays(save, tmp_path):
    model = told(BertMaskedLM)
    getattr(model, save)(tmp_path)
    path = tmp_path / CARD_FILE
    model.model_card = {}
    getattr(model, save)(tmp_path)
    assert "## Data" not in path.read_text(encoding="utf-8"), "ours is written anew"
    mine = path.read_text(encoding="utf-8").replace(WRITTEN_HERE, "").encode() + b"\xff mine"
    path.write_bytes(mine)
    getattr(model, save)(tmp_path)
    assert path.read_bytes() == mine


def test_a_model_without_a_name():
    preset = BertBackbone(small_config()).to_preset()
    text = model_card(type(preset)(**{**vars(preset), "model": None}), "bertkeras")
    assert "\n# BERT\n" in text
    assert "model = BertBackbone.from_preset(" in text
