"""What `sentence-transformers` lays beside a BERT: how its vectors become one, and how long a text may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bertkeras.checkpoints.presets import read_json
from bertkeras.errors import BertKerasError
from bertkeras.files import write_text

MODULES_FILE, LENGTH_FILE = "modules.json", "sentence_bert_config.json"
PROMPT_FILE, TOKENIZER_FILE = "config_sentence_transformers.json", "tokenizer_config.json"
VERY_LARGE = 10**9  # a tokenizer without a limit says some such number
POOLING_FOLDER = "1_Pooling"
OLD_NAMES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}


def is_one(folder: Path) -> bool:
    return (folder / MODULES_FILE).is_file()


def read_options(folder: Path, max_positions: int) -> dict[str, Any]:
    """The arguments `pooling`, `normalize` and, if a limit is set, `max_length` of `BertTextEmbedder`.

    Raises:
        BertKerasError: A module other than a transformer, a pooling by CLS, mean or maximum, and a normalisation.
    """
    path = folder / MODULES_FILE
    modules = read_json(path, list)
    try:
        kinds = [(module["type"].rpartition(".")[2], folder / module["path"]) for module in modules]
    except (AttributeError, KeyError, TypeError) as error:
        raise BertKerasError(f"{path} is damaged: a module needs a type and a path") from error
    names = [kind for kind, _ in kinds]
    if kinds and kinds[0][1] != folder:
        raise BertKerasError(f"{path}: the transformer lies in {kinds[0][1]}; move its files beside {MODULES_FILE}")
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise BertKerasError(
            f"{path}: modules {', '.join(names)} are not supported; Transformer, Pooling and Normalize are"
        )
    if prompt := _read(folder / PROMPT_FILE).get("default_prompt_name"):
        raise BertKerasError(
            f"{folder / PROMPT_FILE}: the prompt {prompt!r} is put before every text, which is not supported;"
            " remove default_prompt_name and write the prompt yourself"
        )
    limits, tokenizer = _read(folder / LENGTH_FILE), _read(folder / TOKENIZER_FILE)
    if limits.get("do_lower_case") and not tokenizer.get("do_lower_case", True):
        raise BertKerasError(f"{folder / LENGTH_FILE} lowercases and {TOKENIZER_FILE} does not; set it there")
    length = limits.get("max_seq_length")
    if length is None and isinstance(said := tokenizer.get("model_max_length"), int) and said < VERY_LARGE:
        length = said
    if not isinstance(length, int | None):
        raise BertKerasError(f"{folder / LENGTH_FILE}: max_seq_length must be a number, got {length!r}")
    return {
        "pooling": _pooling(kinds[1][1] / "config.json"),
        "normalize": "Normalize" in names,
        "max_length": None if length is None else min(length, max_positions),
    }


def write(folder: Path, options: dict[str, Any], hidden_dim: int) -> None:
    """The files that let `sentence-transformers` load a `BertTextEmbedder` with these options."""
    kinds = [("Transformer", ""), ("Pooling", POOLING_FOLDER)]
    kinds += [("Normalize", "2_Normalize")] if options["normalize"] else []
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": hidden_dim,
        **{f"pooling_mode_{name}": mode == options["pooling"] for name, mode in OLD_NAMES.items()},
    }
    write_text(folder / POOLING_FOLDER / "config.json", json.dumps(pooling, indent=2) + "\n")
    write_text(folder / LENGTH_FILE, json.dumps({"max_seq_length": options["max_length"]}, indent=2) + "\n")
    write_text(folder / MODULES_FILE, json.dumps(modules, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pooling(path: Path) -> str:
    said = read_json(path)
    mode = said.get("pooling_mode")
    if mode is None:  # each way had a switch of its own once
        on = [name.removeprefix("pooling_mode_") for name, value in said.items() if "pooling_mode" in name and value]
        mode = OLD_NAMES.get(on[0], on[0]) if len(on) == 1 else on
    if mode not in OLD_NAMES.values():
        raise BertKerasError(f"{path}: pooling {mode!r} is not supported; {', '.join(OLD_NAMES.values())} are")
    return mode
