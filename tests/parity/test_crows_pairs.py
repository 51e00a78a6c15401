"""CrowS-Pairs, scored as its authors' script scores it: `transformers`, one masked place at a time."""

import difflib

import numpy as np
import pytest

from bertkeras import BertMaskedLM
from bertkeras.analysis import crows_pairs
from bertkeras.datasets import rows
from bertkeras.errors import BertKerasError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
PAIRS = 40


def by_the_book(model, tokenizer, pair):
    """Scores of both sentences: the sum over the pieces they share of the log probability of each, masked."""
    sentences = [torch.tensor(tokenizer.encode(pair[name])) for name in ("sent_more", "sent_less")]
    spans = [[], []]
    matcher = difflib.SequenceMatcher(None, *[[str(piece) for piece in ids.tolist()] for ids in sentences])
    for kind, *ends in matcher.get_opcodes():
        if kind == "equal":
            spans[0] += range(*ends[:2])
            spans[1] += range(*ends[2:])
    scores = []
    for ids, places in zip(sentences, spans, strict=True):
        total = 0.0
        for place in places[1:-1]:
            masked = ids.clone()
            masked[place] = tokenizer.mask_token_id
            with torch.no_grad():
                logits = model(masked[None]).logits[0, place]
            total += torch.log_softmax(logits, dim=0)[ids[place]].item()
        scores.append(round(total, 3))
    return scores


def test_scores_are_those_of_the_published_method(tmp_path):
    try:
        pairs = rows("crows-pairs", "test")[:PAIRS]
    except BertKerasError as error:
        pytest.skip(f"CrowS-Pairs is not here: {error}")
    ours = BertMaskedLM.from_preset("course-bert")
    ours.save_to_hugging_face(tmp_path)
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    found = crows_pairs(ours, pairs)
    expected = np.array([by_the_book(theirs, tokenizer, pair) for pair in pairs])
    np.testing.assert_allclose(found.scores, expected, atol=0.0021)  # two roundings and float32
    more, less = found.scores.T
    directions = np.array([pair["stereo_antistereo"] for pair in pairs])
    for share, direction in ((found.stereotype, "stereo"), (found.antistereotype, "antistereo")):
        # their script turns a pair of the second kind around, and then counts where its second sentence is likelier
        first, second = (more, less) if direction == "stereo" else (less, more)
        chosen = (directions == direction) & (first != second)
        wins = first > second if direction == "stereo" else second > first
        assert (share.hits, share.count) == (int(wins[chosen].sum()), int(chosen.sum()))
    assert found.metric.hits == found.stereotype.hits + found.antistereotype.hits
    assert found.metric.percent == pytest.approx(100 * found.metric.hits / len(pairs))
