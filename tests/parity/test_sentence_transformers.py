"""The vectors of all-MiniLM-L6-v2 are those of `sentence-transformers`, on real sentences."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from bertkeras.checkpoints.hub import locate
from bertkeras.errors import BertKerasError
from bertkeras.models import BertTextEmbedder
from tests.parity.results import record

NAME = "all-MiniLM-L6-v2"
SENTENCES = [
    "The cat sat on the mat.",
    "A kitten is resting on the rug",
    "Train your own BERT, from raw text to a model you ship!",
    "café, naïve, İstanbul — 北京欢迎你",
    "",
    "word " * 400,  # cut after 256 pieces
]


@pytest.fixture(scope="module")
def folder():
    try:
        return locate(NAME)
    except BertKerasError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference(folder):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def largest_difference(reference, sentences):
    ours = BertTextEmbedder.from_preset(NAME).embed(sentences)
    theirs = reference.encode(sentences, batch_size=32)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
    return float(np.abs(ours - theirs).max())


def test_vectors(reference):
    assert largest_difference(reference, SENTENCES) < 1e-5


def test_a_thousand_real_sentences(reference):
    home = os.environ.get("BERTKERAS_DATA_HOME")
    files = sorted(Path(home or "", "uci-sentiment-sentences").glob("*_labelled.txt*")) if home else []
    if not files:
        pytest.skip("uci-sentiment-sentences is not in BERTKERAS_DATA_HOME")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]
    sentences = [line.rpartition("\t")[0].strip() for line in lines][::3][:1000]
    assert len(sentences) == 1000
    difference = largest_difference(reference, sentences)
    record(
        f"sentence_transformers_{keras.backend.backend()}",
        {"model": NAME, "sentences": 1000, "largest_difference": float(f"{difference:.2e}")},
    )
    assert difference < 1e-5
