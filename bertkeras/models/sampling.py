"""Text from a masked LM, which was never taught to write from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.models.masked_lm import BertMaskedLM, rows_with_blanks
from bertkeras.models.running import as_list, needed_tokenizer
from bertkeras.models.search import check_draw, draw, keep_likeliest, log_softmax
from bertkeras.text.wordpiece import WordPieceTokenizer

Start = str | int
# Fills the blanks of `token_ids`, in place: given the inputs, the places of the blanks, and a generator for each row.
Fill = Callable[[dict[str, np.ndarray], list[list[int]], list[np.random.Generator]], None]


def gibbs_sample(
    model: BertMaskedLM,
    length: int | None = None,
    start: str | Sequence[str] | None = None,
    num_samples: int = 1,
    sweeps: int = 10,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[str]:
    """Texts found by drawing one word piece after the other, again and again (Wang and Cho 2019).

    All blanks are masked at first. In each sweep every blank has its turn, in an order drawn anew: it is masked, and
    its piece drawn from what the model says, given all others as they then are. A sweep takes as many calls of the
    model as a text has blanks.

    This is not Gibbs sampling in the strict sense: as Cho has corrected the paper, BERT is no Markov random field. What
    it says of each place need not belong to one joint distribution of the text, so that there is none from which the
    samples are known to come.

    Args:
        model: A masked LM with a tokenizer.
        length: How many pieces, all to be found; or else
        start: A text or several, with `[MASK]` where a piece is to be found; all others stay.
        num_samples: How many texts for the length or for each start.
        sweeps: How often every blank is drawn.
        temperature: Divides the logits before drawing: less than 1 favours the likely.
        top_k: Draw among so many likeliest pieces only.
        seed: Seed of the draws, 0 or more. A sample depends on it and on its number; on those beside it only by the
            rounding of sums.
        batch_size: How many texts are worked on at once.

    Returns:
        The texts, those of the first start first. No special token is drawn.

    Raises:
        BertKerasError: No tokenizer, an option out of range, a start without `[MASK]`, or too long a text.

    Reference: https://arxiv.org/abs/1902.04094; the correction is
    http://www.kyunghyuncho.me/home/blog/amistakeinwangchoberthasamouthanditmustspeakbertasamarkovrandomfieldlanguagemodel
    """
    tokenizer = needed_tokenizer(model.tokenizer, "gibbs_sample")
    if (length is None) == (start is None):
        raise BertKerasError("give length or start, one of them: how many pieces, or a text with [MASK]s")
    check_draw(temperature, top_k, None, seed)
    for name, value in (("sweeps", sweeps), ("num_samples", num_samples)):
        if not isinstance(value, int) or value < 1:
            raise BertKerasError(f"{name} must be a positive integer, got {value!r}")
    starts: Sequence[Start | None] = [length] if start is None else as_list(start)

    def fill(inputs: dict[str, np.ndarray], blanks: list[list[int]], randoms: list[np.random.Generator]) -> None:
        token_ids = inputs["token_ids"]
        for _ in range(sweeps):
            orders = [random.permutation(places) for places, random in zip(blanks, randoms, strict=True)]
            for turn in range(max(map(len, blanks))):
                rows = [row for row, order in enumerate(orders) if turn < len(order)]
                positions = np.zeros((len(blanks), 1), "int32")
                for row in rows:
                    positions[row] = orders[row][turn]
                    token_ids[row, orders[row][turn]] = tokenizer.mask_id
                log_probs = _log_probs(model, tokenizer, {**inputs, "mask_positions": positions})[:, 0]
                for row in rows:
                    token_ids[row, orders[row][turn]] = _drawn(log_probs[row], temperature, top_k, randoms[row])

    return _filled(model, tokenizer, [one for one in starts for _ in range(num_samples)], fill, seed, batch_size)


def mask_predict(
    model: BertMaskedLM,
    text_or_length: Start | Sequence[Start],
    iterations: int = 10,
    temperature: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[str]:
    """Texts whose blanks are all filled at once, and then the least certain again (Ghazvininejad et al. 2019).

    With `N` blanks and `T` iterations, iteration `t = 0, 1, ...` masks the `N (T - t) / T` blanks, rounded down, whose
    pieces had the least probability when they were chosen, and chooses these anew, given the others. The texts take `T`
    calls of the model, however long they are.

    Args:
        model: A masked LM with a tokenizer.
        text_or_length: A text with `[MASK]`s, of which only these are filled, or how many pieces; or several of both.
        iterations: `T`.
        temperature: `None` takes the likeliest piece each time, as in the paper; a number draws it, from logits
            divided by that number.
        top_k: Draw among so many likeliest pieces only.
        seed: Seed of the draws, 0 or more. A text depends on it and on its number; on those beside it only by the
            rounding of sums.
        batch_size: How many texts are worked on at once.

    Returns:
        The texts, in their order. No special token is chosen.

    Raises:
        BertKerasError: No tokenizer, an option out of range, a text without `[MASK]`, or too long a text.

    Reference: https://arxiv.org/abs/1904.09324
    """
    tokenizer = needed_tokenizer(model.tokenizer, "mask_predict")
    check_draw(temperature, top_k, None, seed)
    if temperature is None and top_k is not None:
        raise BertKerasError(f"top_k={top_k} needs a temperature, such as 1.0; without one nothing is drawn")
    if not isinstance(iterations, int) or iterations < 1:
        raise BertKerasError(f"iterations must be a positive integer, got {iterations!r}")

    def fill(inputs: dict[str, np.ndarray], blanks: list[list[int]], randoms: list[np.random.Generator]) -> None:
        token_ids = inputs["token_ids"]
        certainty = [np.zeros(len(places)) for places in blanks]  # log probabilities of the pieces chosen
        for iteration in range(iterations):
            chosen = []
            for row, places in enumerate(blanks):
                count = len(places) * (iterations - iteration) // iterations
                chosen.append(np.sort(np.argsort(certainty[row], kind="stable")[:count]))
                token_ids[row, np.take(places, chosen[row])] = tokenizer.mask_id
            if not any(map(len, chosen)):
                break
            log_probs = _log_probs(model, tokenizer, inputs)  # (rows, blanks, pieces)
            for row, numbers in enumerate(chosen):
                for number in numbers:
                    scores = log_probs[row, number]
                    piece = _drawn(scores, temperature, top_k, randoms[row])
                    token_ids[row, blanks[row][number]], certainty[row][number] = piece, scores[piece]

    starts = [text_or_length] if isinstance(text_or_length, Start) else text_or_length
    return _filled(model, tokenizer, starts, fill, seed, batch_size)


def _filled(
    model: BertMaskedLM,
    tokenizer: WordPieceTokenizer,
    starts: Sequence[Start | None],
    fill: Fill,
    seed: int,
    batch_size: int,
) -> list[str]:
    """The texts, `fill` having done its work batch by batch."""
    for start in starts:
        if not isinstance(start, str) and (not isinstance(start, int) or start < 1):
            raise BertKerasError(f"a length must be a positive integer, got {start!r}")
    texts = [start if isinstance(start, str) else "[MASK]" * (start or 0) for start in starts]
    found = []
    for begin in range(0, len(texts), batch_size):
        batch = texts[begin : begin + batch_size]
        inputs, blanks = rows_with_blanks(batch, tokenizer, model.config.max_sequence_length)
        fill(inputs, blanks, [np.random.default_rng([seed, begin + number]) for number in range(len(batch))])
        for ids, is_token in zip(inputs["token_ids"], inputs["padding_mask"], strict=True):
            found.append(tokenizer.decode(ids[is_token][1:-1], skip_special_tokens=False))
    return found


def _log_probs(model: BertMaskedLM, tokenizer: WordPieceTokenizer, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """`(rows, blanks, pieces)`, of the pieces that are no special tokens; these have `-inf`."""
    logits = ops.convert_to_numpy(ops.cast(model(inputs, training=False), "float32"))
    return log_softmax(np.where(tokenizer.special_flags(), -np.inf, logits[..., : tokenizer.vocabulary_size]))


def _drawn(log_probs: np.ndarray, temperature: float | None, top_k: int | None, random: np.random.Generator) -> int:
    """A piece, by log probabilities `(pieces,)`; the likeliest if there is no temperature."""
    if temperature is None:
        return int(np.argmax(log_probs))
    return draw(keep_likeliest(log_probs[None] / temperature, top_k)[0], random.random())
