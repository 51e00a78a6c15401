import numpy as np
import pytest
import tensorflow as tf

from bertkeras.pipelines.packing import packed_features
from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions
from tests.pipelines.test_sentence_pairs import CLS, FIRST, PAD, SEP, corpus, document_of, numpy_rows

PACKED = RowOptions(61, pairs="packed")


@pytest.mark.parametrize("pass_number", range(6))
def test_every_token_stands_once_in_a_sequence_of_its_own_document(pass_number):
    block = corpus(documents=211, longest=9)
    ids = numpy_rows(block, PACKED, pass_number=pass_number)["token_ids"]
    tokens = ids[ids >= FIRST] - FIRST
    assert sorted(tokens.tolist()) == list(range(len(block.tokens)))
    for row in ids:
        used = row[row != PAD]
        pieces = np.split(used, np.flatnonzero(used == CLS))
        assert len(pieces[0]) == 0  # a row begins with [CLS]
        for piece in pieces[1:]:
            assert piece[-1] == SEP
            assert len(piece) > 2
            text = piece[1:-1] - FIRST
            assert (np.diff(text) == 1).all()
            assert document_of(block, text[0]) == document_of(block, text[-1])


def test_rows_are_full():
    ids = numpy_rows(corpus(documents=500, longest=9), PACKED)["token_ids"]
    assert (ids != PAD).mean() > 0.98


def test_cuts_move_from_pass_to_pass():
    block = corpus()
    first, second = (numpy_rows(block, PACKED, pass_number=number)["token_ids"] for number in (0, 1))
    assert len({tuple(row) for row in first} & {tuple(row) for row in second}) < len(first) / 4


def test_a_cut_between_documents_leaves_padding_not_empty_sequences():
    # Documents of exactly a row's payload, 6 - 2: every cut but the phase's falls at a document's end.
    tokens = np.arange(10, 10 + 40, dtype="int32")
    block = DocumentBlock(tokens, np.zeros(0, bool), np.arange(0, 40, 4), np.arange(0, 40, 4))
    for pass_number in range(8):
        ids = numpy_rows(block, RowOptions(8, pairs="packed"), pass_number=pass_number)["token_ids"]
        text = "".join("c" if i == CLS else "s" if i == SEP else "." if i == PAD else "t" for i in ids.ravel())
        assert "cs" not in text
        assert "cc" not in text
        assert "ss" not in text
        assert text.count("t") == 40


def test_features_number_the_sequences_and_begin_positions_anew():
    ids = tf.constant([[PAD, CLS, 11, SEP, CLS, 12, 13, SEP, PAD], [CLS, 11, 12, 13, 14, 15, 16, 17, SEP]])
    features = packed_features(ids, CLS, PAD)
    assert features["sequence_ids"].numpy().tolist() == [[0, 1, 1, 1, 2, 2, 2, 2, 0], [1] * 9]
    assert features["position_ids"].numpy().tolist() == [[0, 0, 1, 2, 0, 1, 2, 3, 0], list(range(9))]
