"""Labelled data: files of the usual formats, and data sets by their names."""

from bertkeras.datasets.examples import Answer, QuestionExample, TextExample, TokenExample
from bertkeras.datasets.readers import read_examples
from bertkeras.datasets.registry import DatasetInfo, info, load, locate, names, rows, splits

__all__ = [
    "Answer",
    "DatasetInfo",
    "QuestionExample",
    "TextExample",
    "TokenExample",
    "info",
    "load",
    "locate",
    "names",
    "read_examples",
    "rows",
    "splits",
]
