"""The model card: a README that says what a model is, what it learned from, how well, and by which command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkeras.files import write_text

if TYPE_CHECKING:
    from bertkeras.checkpoints.presets import Preset

CARD_FILE = "README.md"
AUTO_CLASSES = {
    "BertPretrainer": "AutoModelForPreTraining",
    "BertMaskedLM": "AutoModelForMaskedLM",
    "BertTextClassifier": "AutoModelForSequenceClassification",
    "BertTokenClassifier": "AutoModelForTokenClassification",
    "BertQuestionAnswerer": "AutoModelForQuestionAnswering",
}
WRITTEN_HERE = "<!-- written by bertkeras; remove this line to keep the file as it is -->"


def write_model_card(folder: Path, preset: Preset, library: str) -> None:
    """Write `README.md`, unless one stands there that was written by hand."""
    path = folder / CARD_FILE
    if path.is_file() and WRITTEN_HERE not in path.read_text(encoding="utf-8", errors="replace"):
        return
    write_text(path, model_card(preset, library))


def model_card(preset: Preset, library: str) -> str:
    """The card as Markdown with the front matter of the Hugging Face Hub.

    Args:
        preset: The model. Of `preset.card`, `data`, `metrics` and `command` are told.
        library: The library that loads the folder: `bertkeras`, `transformers` or `sentence-transformers`.
    """
    config, card = preset.config, preset.card
    parameters = sum(array.size for array in preset.arrays.values())
    facts = {
        "class": preset.model,
        "parameters": parameters,
        "encoder blocks": config.num_layers,
        "width": config.hidden_dim,
        "attention heads": config.num_heads,
        "feed-forward width": config.intermediate_dim,
        "longest row": config.max_sequence_length,
        "vocabulary": config.vocabulary_size,
    }
    parts = [
        f"---\nlibrary_name: {library}\ntags:\n- bert\n- bertkeras\n---",
        WRITTEN_HERE,
        f"# {preset.model or 'BERT'}",
        _table("what", "", facts),
    ]
    if data := card.get("data"):
        parts += ["## Data", _table("what", "", data)]
    if metrics := card.get("metrics"):
        parts += ["## Held-out figures", _table("metric", "value", metrics)]
    if command := card.get("command"):
        parts += ["## How it was made", _code(command, "sh")]
    parts += ["## Use", _use(preset, library)]
    return "\n\n".join(parts) + "\n"


def _use(preset: Preset, library: str) -> str:
    if library == "sentence-transformers":
        library, name = "sentence_transformers", "SentenceTransformer"
        call = name
    elif library == "transformers":
        name = AUTO_CLASSES.get(preset.model or "", "AutoModel")
        if not preset.options.get("next_sentence", True):
            name = AUTO_CLASSES["BertMaskedLM"]
        call = f"{name}.from_pretrained"
    else:
        name = preset.model or "BertBackbone"
        call = f"{name}.from_preset"
    return _code(f'from {library} import {name}\n\nmodel = {call}("path of this folder")', "python")


def _table(first: str, second: str, rows: dict[str, Any]) -> str:
    lines = [f"| {first} | {second} |", "|---|---|", *(f"| {_cell(k)} | {_cell(v)} |" for k, v in rows.items())]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def _code(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
