import numpy as np
import pytest

from bertkeras.pipelines.ngrams import NgramCounts


def test_figures_by_hand():
    # Documents "1 2 1 2 3" and "2 3", vocabulary 0..4. Pairs: 12 twice, 21 once, 23 twice; none from 3 to 2.
    ngrams = NgramCounts(5)
    ngrams.add(np.array([1, 2, 1, 2, 3, 2, 3]), np.array([0, 5]))
    figures = ngrams.evaluate(np.array([2, 1, 4]), np.array([1, 2, -1]))
    unigram = {1: 3 / 12, 2: 4 / 12, 4: 1 / 12}  # (count + 1) / (7 + 5)
    discount = 1 / (1 + 2 * 2)  # one pair seen once, two seen twice
    after_1 = (2 - discount) / 2 + discount * 1 / 2 * unigram[2]
    after_2 = (1 - discount) / 3 + discount * 2 / 3 * unigram[1]
    assert figures["bigram_loss"] == pytest.approx(-np.mean(np.log([after_1, after_2, unigram[4]])))
    assert figures["unigram_loss"] == pytest.approx(-np.mean(np.log([unigram[2], unigram[1], unigram[4]])))
    assert figures["uniform_loss"] == pytest.approx(np.log(5))
    assert figures["unigram_accuracy"] == pytest.approx(1 / 3)  # always 2
    assert figures["bigram_accuracy"] == pytest.approx(1 / 3)  # 2 after 1; 3 after 2; 2 with nothing before


@pytest.mark.parametrize("previous", [-1, 0, 1, 2, 6])
def test_probabilities_sum_to_one(previous):
    random = np.random.default_rng(0)
    ngrams = NgramCounts(7)
    ngrams.add(random.integers(0, 6, 53), np.array([0, 11]))
    losses = [ngrams.evaluate(np.array([target]), np.array([previous])) for target in range(7)]
    for kind in ("unigram_loss", "bigram_loss"):
        assert sum(np.exp(-loss[kind]) for loss in losses) == pytest.approx(1)


def test_blocks_add_up_and_survive_a_file(tmp_path):
    random = np.random.default_rng(0)
    first, second = random.integers(0, 11, 100), random.integers(0, 11, 70)
    whole, parts = NgramCounts(11), NgramCounts(11)
    whole.add(np.concatenate([first, second]), np.array([0, 100]))
    parts.add(first, np.array([0]))
    parts.add(second, np.array([0]))
    parts.save(tmp_path / "ngrams.safetensors")
    loaded = NgramCounts.load(tmp_path / "ngrams.safetensors")
    targets, previous = random.integers(0, 11, 50), random.integers(-1, 11, 50)
    assert whole.evaluate(targets, previous) == loaded.evaluate(targets, previous)


def test_counting_stops_at_the_limit():
    ngrams = NgramCounts(5, token_limit=3)
    for _ in range(3):
        ngrams.add(np.array([1, 2, 3]), np.array([0]))
    assert ngrams.unigrams.sum() == 3


def test_no_pair_at_all_is_the_unigram():
    ngrams = NgramCounts(5)
    ngrams.add(np.array([1, 2]), np.array([0, 1]))
    figures = ngrams.evaluate(np.array([1, 2]), np.array([1, -1]))
    assert figures["bigram_loss"] == figures["unigram_loss"]


def test_repeated_text_leaves_something_for_new_pairs():
    # Every pair twice: by the formula no discount, and a pair never seen would have an infinite loss.
    ngrams = NgramCounts(4)
    ngrams.add(np.array([0, 1, 2, 0, 1, 2]), np.array([0, 3]))
    losses = [ngrams.evaluate(np.array([target]), np.array([0]))["bigram_loss"] for target in range(4)]
    assert np.isfinite(losses).all()
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1)
