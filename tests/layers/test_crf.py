import functools
import itertools
import re

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.crf import CRF
from bertkeras.text.tags import forbidden_pairs, tag_names
from tests.checks import (
    check_constructor,
    check_files,
    check_modes,
    compiled,
    flat,
    functional,
    gradients,
    numpy,
    randomize,
)

BACKEND = keras.backend.backend()
BIOES = forbidden_pairs(tag_names(["a", "b"], "bioes"))  # of 9 tags


def make_crf(num_classes, forbidden=(), scale=1.0, **options):
    crf = CRF(num_classes, forbidden, **options)
    crf.build()
    randomize(crf, scale=scale)
    return crf


def some_batch(batch, length, num_classes, scale=1.0, share=0.7, seed=0):
    """Emissions, tags, and a mask with holes, of which no row is empty."""
    rng = np.random.default_rng(seed)
    mask = rng.random((batch, length)) < share
    mask[:, length // 2] = True
    emissions = scale * rng.normal(size=(batch, length, num_classes))
    return emissions.astype("float32"), rng.integers(0, num_classes, mask.shape).astype("int32"), mask


@functools.lru_cache(maxsize=4)
def everything_of(crf, k):
    """A function of emissions, tags and mask that gives what a CRF knows of them, compiled once on JAX."""

    def everything(emissions, tags, mask):
        found = {
            "log_likelihood": crf.log_likelihood(emissions, tags, mask),
            "marginals": crf.marginals(emissions, mask),
            "best": crf(emissions, mask),
        }
        if k:
            found["log_normalizer"] = crf.log_normalizer(emissions, mask)
            found["best_k"], found["log_probabilities"] = crf.best_paths(emissions, mask, k)
        return found

    return compiled(everything)


def outputs_of(crf, emissions, tags, mask, k=None):
    outputs = everything_of(crf, k)(*map(ops.convert_to_tensor, (emissions, tags, mask)))
    return {name: numpy(output) for name, output in outputs.items()}


def likelihood_gradients(crf, emissions, tags, mask, weights=None):
    """Of the sum of log-likelihoods, with respect to the emissions and the transitions."""
    variable = keras.Variable(emissions)
    weights = ops.convert_to_tensor(np.ones(len(emissions)) if weights is None else weights, "float32")
    return gradients(
        lambda: ops.sum(weights * crf.log_likelihood(variable, tags, mask)), [variable, *crf.trainable_variables]
    )


def forbidden_steps(paths, mask, forbidden):
    """How many steps of the paths `(batch, length)` are forbidden, those from the beginning and to the end too."""
    count = 0
    for path, counts in zip(paths, mask, strict=True):
        framed = [-1, *path[counts], -1]
        count += sum(step in forbidden for step in itertools.pairwise(framed)) if counts.any() else 0
    return count


# === Every path of small cases, in float64 ===


def legal_paths(num_classes, length, forbidden):
    """All sequences of tags without a forbidden step, `(paths, length)`."""
    paths = np.array(list(itertools.product(range(num_classes), repeat=length)), int).reshape(
        num_classes**length, length
    )
    framed = np.pad(paths, [(0, 0), (1, 1)], constant_values=-1)
    barred = np.zeros((num_classes + 1, num_classes + 1), bool)
    for before, after in forbidden:
        barred[before, after] = True
    return paths[~barred[framed[:, :-1], framed[:, 1:]].any(1)]


def small_case(num_classes, length, with_forbidden):
    """Rows with every kind of mask, garbage where it is `False`, legal tags, and the forbidden steps."""
    rng = np.random.default_rng([num_classes, length, with_forbidden])
    mask = rng.random((29, length)) < 0.6
    mask[0], mask[1], mask[2, 0] = True, False, False
    emissions = 2 * rng.normal(size=(*mask.shape, num_classes))
    emissions[~mask] = rng.choice([100.0, -1e30, np.inf, np.nan], size=(~mask).sum())[:, None]
    steps = list(itertools.product(range(-1, num_classes), repeat=2))[1:]  # all but -1, -1
    forbidden = []
    while with_forbidden and not forbidden and num_classes > 1:  # of one tag no step can be missing
        forbidden = [step for step in steps if rng.random() < 0.3]
        if not all(len(legal_paths(num_classes, size, forbidden)) for size in range(1, length + 1)):
            forbidden = []
    tags = rng.choice([-100, -1, 0, 1000], size=mask.shape)
    for row in range(len(mask)):
        tags[row, mask[row]] = rng.choice(legal_paths(num_classes, mask[row].sum(), forbidden))
    return emissions.astype("float32"), tags.astype("int32"), mask, forbidden


def by_all_paths(emissions, tags, mask, transitions, forbidden, k):
    """What a CRF gives for one row, from the sum over all its paths."""
    num_classes = emissions.shape[1]
    kept = emissions[mask].astype("float64")
    paths = legal_paths(num_classes, len(kept), forbidden)
    framed = np.pad(paths, [(0, 0), (1, 1)], constant_values=num_classes)
    chosen = np.eye(num_classes + 1)[framed]  # (paths, positions and both ends, num_classes + 1)
    steps = np.einsum("pti,ptj->pij", chosen[:, :-1], chosen[:, 1:])
    scores = np.einsum("ptk,tk->p", chosen[:, 1:-1, :-1], kept) + np.einsum("pij,ij->p", steps, transitions)
    log_z = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    probabilities = np.exp(scores - log_z)
    own = int(np.flatnonzero((paths == tags[mask]).all(1))[0])
    marginals, is_own = np.zeros(emissions.shape), np.zeros(emissions.shape)
    marginals[mask] = np.einsum("p,ptk->tk", probabilities, chosen[:, 1:-1, :-1])
    is_own[mask] = chosen[own, 1:-1, :-1]
    order = np.argsort(-scores)[:k]
    best = np.full((k, len(mask)), -1)
    best[: len(order), mask] = paths[order]
    return {
        "log_likelihood": scores[own] - log_z,
        "log_normalizer": log_z,
        "marginals": marginals,
        "emission_gradient": is_own - marginals,
        "transition_gradient": steps[own] - np.einsum("p,pij->ij", probabilities, steps),
        "best_k": best,
        "log_probabilities": scores[order] - log_z,
    }


CASES = [(4, 5, True), (1, 5, False), (2, 5, True), (3, 1, True), (4, 5, False), (3, 4, True)]
CASES = CASES[::2] if BACKEND == "jax" else CASES  # JAX compiles each anew


@pytest.mark.parametrize(("num_classes", "length", "with_forbidden"), CASES)
def test_every_path(num_classes, length, with_forbidden):
    emissions, tags, mask, forbidden = small_case(num_classes, length, with_forbidden)
    crf = make_crf(num_classes, forbidden)
    transitions = numpy(crf.transitions).astype("float64")
    rows = [by_all_paths(*row, transitions, forbidden, 3) for row in zip(emissions, tags, mask, strict=True)]
    outputs = outputs_of(crf, emissions, tags, mask, k=3)
    close = {"rtol": 1e-5, "atol": 1e-5}
    for name in ("log_likelihood", "log_normalizer", "marginals"):
        np.testing.assert_allclose(outputs[name], [row[name] for row in rows], **close, err_msg=name)
    np.testing.assert_allclose(outputs["marginals"].sum(-1), mask, **close)
    np.testing.assert_array_equal(outputs["best"], [row["best_k"][0] for row in rows])
    for tags_found, found, row in zip(outputs["best_k"], outputs["log_probabilities"], rows, strict=True):
        known = row["log_probabilities"]
        np.testing.assert_array_equal(tags_found[: len(known)], row["best_k"][: len(known)])
        np.testing.assert_allclose(found[: len(known)], known, **close)
        assert (found[len(known) :] < -1e29).all()
    dtypes = {name: output.dtype.name for name, output in outputs.items()}
    assert dtypes == {name: "int32" if name in ("best", "best_k") else "float32" for name in outputs}

    weights = np.random.default_rng(0).normal(size=len(mask))
    of_emissions, of_transitions = likelihood_gradients(crf, emissions, tags, mask, weights)
    expected = weights[:, None, None] * np.stack([row["emission_gradient"] for row in rows])
    np.testing.assert_allclose(of_emissions, expected, **close)
    expected = sum(weight * row["transition_gradient"] for weight, row in zip(weights, rows, strict=True))
    np.testing.assert_allclose(of_transitions, expected, rtol=1e-5, atol=5e-5)


def test_two_positions_worked_out():
    """Tags 0 0 score 0 + 1 + 0.2 + 0 + 0.1 = 1.3; 0 1: 0 + 1 - 1 + 2 + 0 = 2; 1 0: 0.5 + 0 + 0.3 + 0 + 0.1 = 0.9; 1 1:
    0.5 + 0 + 0.4 + 2 + 0 = 2.9. Their exponentials are 3.6693, 7.3891, 2.4596 and 18.1741, together 31.6921."""
    crf = CRF(2)
    crf.build()
    crf.transitions.assign([[0.2, -1.0, 0.1], [0.3, 0.4, 0.0], [0.0, 0.5, 0.0]])
    emissions, together = np.array([[[1.0, 0.0], [0.0, 2.0]]], "float32"), 31.6921
    found = outputs_of(crf, emissions, [[0, 1]], [[True, True]], k=4)
    np.testing.assert_allclose(found["log_normalizer"], [np.log(together)], rtol=1e-5)
    np.testing.assert_allclose(found["log_likelihood"], [2 - np.log(together)], rtol=1e-5)
    np.testing.assert_allclose(found["marginals"][0, :, 1], [20.6337 / together, 25.5632 / together], rtol=1e-5)
    assert found["best_k"].tolist() == [[[1, 1], [0, 1], [0, 0], [1, 0]]]
    expected = np.log(np.array([18.1741, 7.3891, 3.6693, 2.4596]) / together)
    np.testing.assert_allclose(found["log_probabilities"], [expected], rtol=1e-4)


# === Another library, long sequences, large numbers ===


def test_pytorch_crf():
    torchcrf = pytest.importorskip("torchcrf")
    import torch

    torch.set_num_threads(1)  # more would wait for one another over tensors as small as these
    batch, length, num_classes = 17, 101, 23
    emissions, tags, _ = some_batch(batch, length, num_classes, scale=2.0)
    lengths = np.random.default_rng(1).integers(1, length + 1, batch)
    lengths[:2] = 1, length
    mask = np.arange(length) < lengths[:, None]
    crf = make_crf(num_classes)
    transitions = numpy(crf.transitions)

    peer = torchcrf.CRF(num_classes, batch_first=True).double()
    with torch.no_grad():
        peer.transitions.copy_(torch.tensor(transitions[:-1, :-1]))
        peer.start_transitions.copy_(torch.tensor(transitions[-1, :-1]))
        peer.end_transitions.copy_(torch.tensor(transitions[:-1, -1]))
    theirs = torch.tensor(emissions, dtype=torch.float64, requires_grad=True)
    expected = peer(theirs, torch.tensor(tags, dtype=torch.long), torch.tensor(mask), reduction="none")
    expected.sum().backward()

    likelihood, paths = flat(
        compiled(lambda emissions: (crf.log_likelihood(emissions, tags, mask), crf(emissions, mask)))(emissions)
    )
    np.testing.assert_allclose(likelihood, expected.detach().numpy(), rtol=1e-6, atol=1e-4)
    of_emissions, of_transitions = likelihood_gradients(crf, emissions, tags, mask)
    np.testing.assert_allclose(of_emissions, theirs.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(of_transitions[:-1, :-1], peer.transitions.grad.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(of_transitions[-1, :-1], peer.start_transitions.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(of_transitions[:-1, -1], peer.end_transitions.grad.numpy(), atol=1e-5)
    assert [row[counts].tolist() for row, counts in zip(paths, mask, strict=True)] == peer.decode(
        theirs.detach(), torch.tensor(mask)
    )


def test_nothing_is_rounded_away_in_long_sequences():
    """Against the same recursions in float64. Scores add up to thousands, of which float32 keeps three decimals."""
    length, num_classes = 509, 7
    emissions, tags, _ = some_batch(3, length, num_classes, scale=np.array([1.0, 10.0, 30.0])[:, None, None])
    crf = make_crf(num_classes)
    scores, exact = numpy(crf.transitions).astype("float64"), emissions.astype("float64")
    forward, backward = [scores[-1, :-1] + exact[:, 0]], [scores[:-1, -1] + np.zeros_like(exact[:, 0])]
    for t in range(1, length):
        forward.append(np.logaddexp.reduce(forward[-1][:, :, None] + scores[:-1, :-1], axis=1) + exact[:, t])
        into_next = (backward[-1] + exact[:, -t])[:, None]
        backward.append(np.logaddexp.reduce(into_next + scores[:-1, :-1], axis=2))
    log_z = np.logaddexp.reduce(forward[-1] + scores[:-1, -1], axis=1)
    expected = np.exp(np.stack(forward, 1) + np.stack(backward[::-1], 1) - log_z[:, None, None])
    framed = np.pad(tags, [(0, 0), (1, 1)], constant_values=num_classes)
    own = np.take_along_axis(exact, tags[..., None], 2).sum((1, 2)) + scores[framed[:, :-1], framed[:, 1:]].sum(1)

    marginals, likelihood = flat(
        compiled(lambda emissions: (crf.marginals(emissions), crf.log_likelihood(emissions, tags)))(emissions)
    )
    np.testing.assert_allclose(marginals, expected, atol=1e-5)
    np.testing.assert_allclose(marginals.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(likelihood, own - log_z, rtol=3e-7, atol=3e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_emissions_stay_finite(dtype):
    emissions, tags, mask = some_batch(3, 13, 9, scale=np.array([1e4, 1e6, 1e20])[:, None, None])
    emissions = numpy(ops.cast(emissions, dtype))
    crf = make_crf(9)
    outputs = outputs_of(crf, ops.cast(emissions, dtype), tags, mask)
    of_emissions, of_transitions = likelihood_gradients(crf, emissions, tags, mask)
    for values in (*outputs.values(), of_emissions, of_transitions):
        assert np.isfinite(values).all()
    # nothing but the emissions matters then
    best = np.where(mask[..., None], np.eye(9)[emissions.argmax(-1)], 0.0)
    np.testing.assert_array_equal(outputs["best"], np.where(mask, emissions.argmax(-1), -1))
    np.testing.assert_allclose(outputs["marginals"], best, atol=1e-3)
    np.testing.assert_allclose(of_emissions, np.where(mask[..., None], np.eye(9)[tags], 0.0) - best, atol=1e-3)


@pytest.mark.parametrize(("dtype", "learned"), [("float32", True), ("bfloat16", True), ("float32", False)])
def test_no_forbidden_step_is_ever_taken(dtype, learned):
    """Emissions of 10,000 for a random tag at every position, most of which no legal path could follow."""
    rng = np.random.default_rng(0)
    mask = rng.random((19, 37)) < 0.7
    mask[0] = False
    emissions = 2e4 * np.eye(9)[rng.integers(0, 9, mask.shape)] - 1e4 + rng.normal(size=(*mask.shape, 9))
    crf = make_crf(9, BIOES, learned=learned)
    wanted = emissions.argmax(-1)
    assert forbidden_steps(wanted, mask, BIOES) > 100
    emissions = ops.cast(ops.convert_to_tensor(emissions), dtype)
    outputs = outputs_of(crf, emissions, np.zeros(mask.shape, "int32"), mask, k=3)
    np.testing.assert_array_equal(outputs["best"] == -1, ~mask)
    assert forbidden_steps(outputs["best"], mask, BIOES) == 0
    legal = outputs["log_probabilities"] > -1e29
    assert legal[mask.sum(1) > 3].all()
    for rank in range(3):
        rows = legal[:, rank]
        assert forbidden_steps(outputs["best_k"][rows, rank], mask[rows], BIOES) == 0
    np.testing.assert_allclose(outputs["marginals"].sum(-1), mask, atol=1e-5)
    never_first = [tag for before, tag in BIOES if before == -1]
    for row, counts in zip(outputs["marginals"], mask, strict=True):
        assert not row[counts][:1, never_first].any()


def test_tags_that_are_forbidden_have_no_probability_and_finite_gradients():
    emissions, tags, mask = some_batch(3, 7, 9)
    crf = make_crf(9, BIOES)
    assert forbidden_steps(tags, mask, BIOES) > 3
    likelihood = outputs_of(crf, emissions, tags, mask)["log_likelihood"]
    assert np.isfinite(likelihood).all()
    assert (likelihood < -1e29).all()
    for gradient in likelihood_gradients(crf, emissions, tags, mask):
        assert np.isfinite(gradient).all()


# === Masks ===


def test_a_batch_is_its_rows_and_what_is_stepped_over_has_no_effect():
    emissions, tags, mask = some_batch(5, 11, 3)
    crf = make_crf(3, [(0, 1), (-1, 2)])
    whole = outputs_of(crf, emissions, tags, mask, k=2)
    for row in range(len(mask)):
        alone = outputs_of(crf, *(x[row : row + 1] for x in (emissions, tags, mask)), k=2)
        for name, value in alone.items():
            np.testing.assert_allclose(whole[name][row], value[0], rtol=1e-5, atol=1e-5, err_msg=name)

    hidden_emissions, hidden_tags = emissions.copy(), tags.copy()
    hidden_emissions[~mask], hidden_tags[~mask] = np.nan, 10**6
    for name, value in outputs_of(crf, hidden_emissions, hidden_tags, mask, k=2).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
    before = likelihood_gradients(crf, emissions, tags, mask)
    for after, gradient in zip(likelihood_gradients(crf, hidden_emissions, hidden_tags, mask), before, strict=True):
        np.testing.assert_array_equal(after, gradient)
    assert not before[0][~mask].any()

    kept = mask[0]
    for name, value in outputs_of(crf, *(x[:1, kept] for x in (emissions, tags, mask)), k=2).items():
        of_positions = {"best": np.s_[kept], "best_k": np.s_[:, kept], "marginals": np.s_[kept]}
        expected = whole[name][0][of_positions.get(name, ...)]
        np.testing.assert_allclose(value[0], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_without_a_mask_every_position_counts():
    emissions, tags, mask = some_batch(3, 5, 4, share=1.0)
    crf = make_crf(4)
    assert mask.all()
    given = outputs_of(crf, emissions, tags, mask)
    left_out = compiled(
        lambda emissions: (crf(emissions), crf.marginals(emissions), crf.log_likelihood(emissions, tags))
    )(emissions)
    for name, value in zip(("best", "marginals", "log_likelihood"), flat(left_out), strict=True):
        np.testing.assert_allclose(value, given[name], rtol=1e-6, atol=1e-6)


def test_the_mask_of_an_embedding_reaches_it():
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, make_crf(3)(keras.layers.Embedding(7, 3, mask_zero=True)(ids)))
    values = np.array([[0, 5, 0, 3], [1, 2, 3, 0]], "int32")
    np.testing.assert_array_equal(numpy(model(values)) == -1, values == 0)


# === As a layer ===


def test_constructor():
    check_constructor(CRF, {"num_classes": 3, "forbidden": [(0, 1), (-1, 2)], "learned": False})


def test_files_and_modes(tmp_path):
    emissions, _, mask = some_batch(5, 11, 3)
    inputs = {"emissions": emissions, "mask": mask}
    crf = CRF(3, [(0, 1)])
    model = functional(crf, inputs)
    assert (model.output.shape, model.output.dtype) == ((None, None), "int32")
    randomize(crf, scale=3.0)
    check_files(model, inputs, tmp_path)
    check_modes(model, model.outputs[0], inputs)
    np.testing.assert_array_equal(
        numpy(keras.models.load_model(tmp_path / "model.keras").layers[-1].transitions), numpy(crf.transitions)
    )


def test_policies():
    """Emissions in float32 are read in float32; those in bfloat16 give what their values in float32 give."""
    emissions, tags, mask = some_batch(5, 11, 3, scale=0.01)
    half = ops.cast(emissions, "bfloat16")
    assert not np.array_equal(numpy(half), emissions)
    plain = make_crf(3, scale=0.01)
    expected, of_half = (outputs_of(plain, x, tags, mask) for x in (emissions, numpy(half)))
    for policy, given, same in (("mixed_bfloat16", emissions, expected), ("bfloat16", half, of_half)):
        crf = make_crf(3, scale=0.01, dtype=policy)
        assert {weight.dtype for weight in crf.weights} == {"float32"}
        for name, value in outputs_of(crf, given, tags, mask).items():
            np.testing.assert_allclose(value, same[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_not_learned():
    emissions, tags, mask = some_batch(5, 11, 7)
    crf = CRF(7, learned=False)
    outputs = outputs_of(crf, emissions, tags, mask)
    assert crf.weights == []
    np.testing.assert_array_equal(outputs["best"], np.where(mask, emissions.argmax(-1), -1))
    log_p = emissions - np.log(np.exp(emissions).sum(-1, keepdims=True))
    np.testing.assert_allclose(outputs["marginals"], np.exp(log_p) * mask[..., None], atol=1e-6)
    expected = (np.take_along_axis(log_p, tags[..., None], 2)[..., 0] * mask).sum(1)
    np.testing.assert_allclose(outputs["log_likelihood"], expected, rtol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Tagger(keras.Model):
    """A linear layer and a CRF, which learns from labels of which a negative one does not count."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.dense = keras.layers.Dense(num_classes)
        self.crf = CRF(num_classes, [(0, 1)])

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return -ops.mean(self.crf.log_likelihood(y_pred, ops.maximum(y, 0), y >= 0))

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.crf.build()

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@pytest.mark.parametrize("jit_compile", [True, False] if BACKEND == "tensorflow" else [BACKEND == "jax"])
def test_training_steps(jit_compile, tmp_path):
    """A compiled step is one of plain gradient descent, and the saved model is the one that learned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 11, 5)).astype("float32")
    y = np.where(rng.random((7, 11)) < 0.7, rng.choice([0, 2], size=(7, 11)), -1).astype("int32")
    model, twin = Tagger(3), Tagger(3)
    for each in (model, twin):
        each.build((None, None, 5))
    randomize(model)
    twin.set_weights(model.get_weights())
    model.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
    variables = twin.trainable_variables
    found = gradients(lambda: twin.compute_loss(x, y, twin(x)), variables)
    loss = compiled(lambda x, y: twin.compute_loss(x, y, twin(x)))(x, y)
    np.testing.assert_allclose(model.train_on_batch(x, y), numpy(loss), rtol=1e-5)
    for variable, gradient in zip(variables, found, strict=True):
        assert np.abs(gradient).max() > 1e-3
        variable.assign(variable - 0.1 * gradient)
    for weight, expected in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_allclose(numpy(weight), numpy(expected), rtol=1e-5, atol=1e-5)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(again.crf.transitions), numpy(model.crf.transitions))
    expected, outputs = (outputs_of(each.crf, each(x), np.maximum(y, 0), y >= 0) for each in (model, again))
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX always compiles, PyTorch does not")
def test_everything_under_xla_is_as_without():
    import tensorflow as tf

    emissions, tags, mask = map(tf.constant, some_batch(5, 11, 9))
    crf = make_crf(9, BIOES)

    def everything(emissions, tags, mask):
        with tf.GradientTape() as tape:
            tape.watch(emissions)
            likelihood = crf.log_likelihood(emissions, tags, mask)
        found = tape.gradient(likelihood, [emissions, crf.transitions.value])
        return likelihood, found, crf(emissions, mask), crf.best_paths(emissions, mask, 2)

    unknown = [tf.TensorSpec([None, None, 9], "float32"), *(tf.TensorSpec([None, None], x.dtype) for x in (tags, mask))]
    compiled_by_xla = tf.function(everything, input_signature=unknown, jit_compile=True)
    expected = flat(everything(emissions, tags, mask))
    for output, value in zip(flat(compiled_by_xla(emissions, tags, mask)), expected, strict=True):
        np.testing.assert_allclose(output, value, rtol=1e-5, atol=1e-5)


# === Errors ===

E, M, T = np.zeros((2, 5, 3), "float32"), np.ones((2, 5), bool), np.zeros((2, 5), "int32")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda crf: CRF(0), "num_classes must be a positive integer, got 0"),
        (lambda crf: CRF(2.5), "num_classes must be a positive integer, got 2.5"),
        (lambda crf: CRF(3, [(0, 3)]), r"pairs of numbers from -1 to 2, got \(0, 3\)"),
        (lambda crf: CRF(3, [(-2, 0)]), r"pairs of numbers from -1 to 2, got \(-2, 0\)"),
        (lambda crf: CRF(3, [(0, 1, 2)]), r"pairs of numbers from -1 to 2, got \(0, 1, 2\)"),
        (lambda crf: crf(E[0]), r"emissions must have shape \(batch, length, 3\), got \(5, 3\)"),
        (lambda crf: crf.marginals(E[..., :2]), r"emissions must have shape \(batch, length, 3\), got \(2, 5, 2\)"),
        (lambda crf: crf(keras.KerasTensor((None, None, 4))), r"\(batch, length, 3\), got \(None, None, 4\)"),
        (lambda crf: crf(E, M.astype("int32")), r"mask must be boolean of shape \(2, 5\), got int32 of shape \(2, 5\)"),
        (lambda crf: crf(E, M[:, :4]), r"mask must be boolean of shape \(2, 5\), got bool of shape \(2, 4\)"),
        (lambda crf: crf(E, M[0]), r"mask must be boolean of shape \(2, 5\), got bool of shape \(5,\)"),
        (lambda crf: crf.log_likelihood(E, T[:, :4]), r"tags must have shape \(2, 5\), got \(2, 4\)"),
        (lambda crf: crf.log_likelihood(E, T[..., None]), r"tags must have shape \(2, 5\), got \(2, 5, 1\)"),
        (lambda crf: crf.best_paths(E, k=0), "k must be a positive integer, got 0"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(BertKerasError, match=message) as caught:
        wrong(CRF(3))
    assert any(re.search(message, line) for line in str(caught.value).splitlines())  # Keras adds lines of its own
