"""What a fine-tuned model says, as plain values that JSON can write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import bertkeras.models
from bertkeras.checkpoints.presets import read_preset
from bertkeras.datasets.examples import QuestionExample, TextExample, TokenExample
from bertkeras.datasets.lines import read_lines
from bertkeras.datasets.problems import Problems, decoded_lines
from bertkeras.datasets.readers import FORMATS, file_bytes, read_examples
from bertkeras.errors import BertKerasError
from bertkeras.models import (
    BertQuestionAnswerer,
    BertSeq2Seq,
    BertTextClassifier,
    BertTextEmbedder,
    BertTokenClassifier,
)
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.text_tasks import cosines

TOGETHER = 32  # batches that are read before they are answered, so that rows of like length can share one


def predictions(
    preset: str | os.PathLike[str],
    source: str | os.PathLike[str] | Iterable[str],
    *,
    batch_size: int = 32,
    top_k: int = 1,
) -> Iterator[dict[str, Any]]:
    """A dictionary for each text, in their order.

    Args:
        preset: A run of `finetune`, or a preset of a task model.
        source: A file with the columns or keys that the model was trained with, labels not needed; or lines, such as
            standard input: plain texts, or JSON objects with `text`, `text` and `pair`, or `question` and `context`.
        batch_size: Rows at a time.
        top_k: Answers to each question.

    Raises:
        BertKerasError: No task model there, or problems in the file, each with its place.
    """
    name = read_preset(Path(preset)).model or ""
    answer = ANSWERS.get(name)
    if answer is None:
        raise BertKerasError(f"{preset} holds a {name or 'model of no known task'}; predict needs a fine-tuned model")
    config = Path(preset) / "config.toml"
    columns = FinetuneConfig(**FinetuneConfig.load_toml(config)).columns() if config.is_file() else {}
    examples = iter(_examples(source, name, columns))
    model = getattr(bertkeras.models, name).from_preset(preset)
    while some := list(islice(examples, batch_size * TOGETHER)):
        yield from answer(model, some, batch_size, top_k)


def _examples(source: Any, name: str, columns: dict[str, str]) -> Iterable[Any]:
    task = "question-answering" if name == "BertQuestionAnswerer" else "classification"
    if not isinstance(source, (str, os.PathLike)):
        return read_lines(source, task)
    suffix = Path(os.fspath(source).removesuffix(".gz")).suffix.lower()
    if suffix == ".txt" or suffix not in FORMATS:
        problems = Problems(source)
        lines = [line for _, line in decoded_lines(file_bytes(Path(source)), problems)]
        problems.raise_any()
        return list(read_lines(lines, task, os.fspath(source)))
    if name == "BertTokenClassifier" and FORMATS[suffix] == "conll":
        task = "entities"
    return read_examples(source, task, columns=columns, labelled=False)


def _pairs_of(examples: list[TextExample]) -> list[str] | None:
    """The second texts, or `None` if there are none."""
    has_pair = [example.pair is not None for example in examples]
    if any(has_pair) and not all(has_pair):
        odd = examples[has_pair.index(not has_pair[0])]
        raise BertKerasError(f"line {odd.line}: all texts must have a pair or none, and the text before differs")
    return [example.pair or "" for example in examples] if has_pair[0] else None


def _classes(model: BertTextClassifier, examples: list[TextExample], size: int, _: int) -> Iterator[dict[str, Any]]:
    found_of_all = model.classify([e.text for e in examples], _pairs_of(examples), size)
    for example, found in zip(examples, found_of_all, strict=True):
        shown: dict[str, Any] = {"text": example.text, **({} if example.pair is None else {"pair": example.pair})}
        if model.task == "regression":
            shown["value"] = found.values[0] if len(found.values) == 1 else list(found.values)
        elif model.task == "multi_label":
            shown["labels"] = list(found.labels)
        else:
            shown["label"] = found.labels[0]
        yield {**shown, **({"probabilities": found.probabilities} if found.probabilities else {})}


def _entities(model: BertTokenClassifier, examples: list[Any], size: int, _: int) -> Iterator[dict[str, Any]]:
    if isinstance(examples[0], TokenExample):
        for example, tags in zip(examples, model.tag_words([e.tokens for e in examples], size), strict=True):
            yield {"tokens": list(example.tokens), "tags": tags}
        return
    for example, found in zip(examples, model.tag([e.text for e in examples], size), strict=True):
        yield {"text": example.text, "entities": [dataclasses.asdict(entity) for entity in found]}


def _answers(
    model: BertQuestionAnswerer, examples: list[QuestionExample], size: int, top_k: int
) -> Iterator[dict[str, Any]]:
    found = model.answer([e.question for e in examples], [e.context for e in examples], top_k, size)
    for example, answers in zip(examples, found, strict=True):
        shown = {"id": example.id, "question": example.question, **dataclasses.asdict(answers[0])}
        yield shown if top_k == 1 else {**shown, "answers": [dataclasses.asdict(answer) for answer in answers]}


def _vectors(model: BertTextEmbedder, examples: list[TextExample], size: int, _: int) -> Iterator[dict[str, Any]]:
    pairs = _pairs_of(examples)
    vectors = model.embed([e.text for e in examples], size)
    if pairs is None:
        for example, vector in zip(examples, vectors, strict=True):
            yield {"text": example.text, "vector": [round(float(value), 6) for value in vector]}
        return
    for example, likeness in zip(examples, cosines(vectors, model.embed(pairs, size)), strict=True):
        yield {"text": example.text, "pair": example.pair, "similarity": round(float(likeness), 6)}


def _targets(model: BertSeq2Seq, examples: list[TextExample], size: int, _: int) -> Iterator[dict[str, Any]]:
    new = min(64, model.config.max_sequence_length // 4)
    written = model.generate([example.text for example in examples], max_new_tokens=new, batch_size=size)
    for example, text in zip(examples, written, strict=True):
        yield {"text": example.text, "written": text}


ANSWERS: dict[str, Any] = {
    "BertTextClassifier": _classes,
    "BertTokenClassifier": _entities,
    "BertQuestionAnswerer": _answers,
    "BertTextEmbedder": _vectors,
    "BertSeq2Seq": _targets,
}
