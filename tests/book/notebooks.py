"""The book's notebooks, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml

BOOK = Path(__file__).resolve().parents[2] / "book"
PLAIN_NOTEBOOKS = {"preface", "status"}  # pages with numbers in them, which teach nothing


def pages() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def notebooks() -> list[str]:
    return [page for page in pages() if (BOOK / f"{page}.ipynb").is_file()]


def chapters() -> list[str]:
    return [name for name in notebooks() if name not in PLAIN_NOTEBOOKS]


@cache
def read(name: str) -> Any:
    notebook = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def tagged(name: str, tag: str) -> list[Any]:
    return [cell for cell in read(name).cells if tag in cell.metadata.get("tags", [])]


def code(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def prose(name: str) -> str:
    return "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")


@cache
def chapter_classes(name: str) -> dict[str, Any]:
    """What the cells tagged `chapter-class` define, by name, executed in their order and alone."""
    namespace: dict[str, Any] = {}
    for cell in tagged(name, "chapter-class"):
        exec(compile(cell.source, f"{name}:{cell.id}", "exec"), namespace)
    return namespace


def attention_masks(batch: int, length: int) -> dict[str, Any]:
    """The kinds of masks that an attention must understand; in some a position, or a row, sees nothing."""
    pairs = np.random.default_rng(7).random((batch, length, length)) < 0.6
    pairs[0, 2] = False
    place = np.arange(length)[None]
    return {
        "none": None,
        "padding": place < np.array([[length], [length - 4], [1]]),
        "all padding": place < np.array([[length], [0], [1]]),
        "pairs": pairs,
    }
