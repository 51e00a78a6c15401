"""The files of a WordPiece tokenizer: `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkeras.errors import BertKerasError
from bertkeras.files import write_text
from bertkeras.text.wordpiece_trainer import SPECIAL_TOKENS

if TYPE_CHECKING:
    from bertkeras.text.wordpiece import WordPieceTokenizer


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """The pieces in a `vocab.txt`: one a line, the first line has id 0."""
    text = _read(Path(path))
    # Not splitlines: a piece may itself be one of Unicode's line separators.
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line:
            raise BertKerasError(f"{path} line {number} is blank; every line must hold one piece")
    return lines


def write(tokenizer: WordPieceTokenizer, folder: Path) -> None:
    """Write the three files, each whole or not at all."""
    for piece in tokenizer.vocabulary:
        if "\n" in piece or piece.endswith("\r"):
            raise BertKerasError(f"the piece {piece!r} holds a line break, which vocab.txt cannot write; remove it")
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in tokenizer.vocabulary))
    write_text(folder / "tokenizer.json", _engine_json(tokenizer))
    write_text(folder / "tokenizer_config.json", json.dumps(_config(tokenizer), indent=2) + "\n")


def read(where: Path, lowercase: bool | None) -> dict[str, Any]:
    """The constructor's arguments of the tokenizer that lies in a folder, or in one of its files."""
    folder = where if where.is_dir() else where.parent
    engine_path, vocabulary_path = folder / "tokenizer.json", folder / "vocab.txt"
    if where.is_file():
        engine_path, vocabulary_path = (where, where) if where.suffix == ".json" else (folder / "absent", where)
    config = _read_json(folder / "tokenizer_config.json")
    said = config.get("do_lower_case")

    if engine_path.is_file():
        options = _from_engine(engine_path)
        if vocabulary_path.is_file() and vocabulary_path != engine_path:
            _check_same(options["vocabulary"], read_vocabulary(vocabulary_path), folder)
        if lowercase is None and said is not None and said != options["lowercase"]:
            raise BertKerasError(
                f"{folder}: tokenizer.json has lowercase={options['lowercase']}, tokenizer_config.json says {said};"
                " pass lowercase=True or lowercase=False"
            )
    elif vocabulary_path.is_file():
        options = {
            "vocabulary": read_vocabulary(vocabulary_path),
            "lowercase": True if said is None else said,
            "strip_accents": config.get("strip_accents"),
            "split_cjk": config.get("tokenize_chinese_chars", True),
        }
        if lowercase is None and said is None:
            _check_uncased(options["vocabulary"], vocabulary_path)
    else:
        raise BertKerasError(f"{where} has no tokenizer: neither tokenizer.json nor vocab.txt is there")
    return options if lowercase is None else {**options, "lowercase": lowercase}


def _engine_json(tokenizer: WordPieceTokenizer) -> str:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    engine = Tokenizer.from_str(tokenizer._marking_engine.to_str())
    engine.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.cls_id), ("[SEP]", tokenizer.sep_id)],
    )
    return engine.to_str(pretty=True) + "\n"


def _config(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    # `BertTokenizer` is built anew from the vocabulary and knows these two options only by their defaults.
    is_plain = tokenizer.continuation_prefix == "##" and tokenizer.max_characters_per_word == 100
    return {
        "tokenizer_class": "BertTokenizer" if is_plain else "PreTrainedTokenizerFast",
        "do_lower_case": tokenizer.lowercase,
        "strip_accents": tokenizer.strip_accents,
        "tokenize_chinese_chars": tokenizer.split_cjk,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }


def _from_engine(path: Path) -> dict[str, Any]:
    engine = _read_json(path)

    def part(name: str, kind: str) -> dict[str, Any]:
        value = engine.get(name) or {}
        if value.get("type", kind if name == "model" and "vocab" in value else None) != kind:
            raise BertKerasError(f"{path}: {name} is {value.get('type')}, BERT's is {kind}; this is another tokenizer")
        return value

    model = part("model", "WordPiece")
    normalizer = part("normalizer", "BertNormalizer")
    part("pre_tokenizer", "BertPreTokenizer")
    if not normalizer.get("clean_text", True):
        raise BertKerasError(f"{path}: clean_text is off, which is not supported; turn it on and train again")
    foreign = [token["content"] for token in engine.get("added_tokens", []) if token["content"] not in model["vocab"]]
    if foreign:
        raise BertKerasError(f"{path} adds {', '.join(foreign)} outside the vocabulary, which is not supported")
    return {
        "vocabulary": model["vocab"],
        "lowercase": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "split_cjk": normalizer["handle_chinese_chars"],
        "continuation_prefix": model["continuing_subword_prefix"],
        "max_characters_per_word": model["max_input_chars_per_word"],
    }


def _check_same(ids: dict[str, int], pieces: list[str], folder: Path) -> None:
    if ids != {piece: index for index, piece in enumerate(pieces)}:
        raise BertKerasError(
            f"{folder}: vocab.txt and tokenizer.json hold different vocabularies; remove the wrong one"
        )


def _check_uncased(pieces: list[str], path: Path) -> None:
    capital = next((p for p in pieces if p.lstrip("#").isalpha() and p.lower() != p), None)
    if capital:
        raise BertKerasError(
            f"{path} holds the piece {capital!r} with a capital letter and nothing says whether to lowercase;"
            " pass lowercase=False (or True)"
        )


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BertKerasError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BertKerasError(f"{path} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None


def _read_json(path: Path) -> dict[str, Any]:
    """An absent file says nothing."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise BertKerasError(f"{path} line {error.lineno} is not JSON: {error.msg}; write the file anew") from None
    if not isinstance(value, dict):
        raise BertKerasError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value
