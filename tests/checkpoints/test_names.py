import numpy as np
import pytest

from bertkeras.checkpoints.names import NameTable, Rule, dense, norm
from bertkeras.errors import BertKerasError

RULES = [
    *dense("block_{i}/expand", "layer.{i}.up.", "weight", transposed=True),
    *norm("block_{i}/norm", "layer.{i}.ln.", "g", "b"),
    Rule("block_{i}/qkv", ("q.{i}", "k.{i}", "v.{i}"), transposed=True),
    Rule("block_{i}/qkv_bias", ("qb.{i}", "kb.{i}", "vb.{i}")),
    Rule("table", ("words",)),
]


def numbers(*shape, start=0):
    return (start + np.arange(np.prod(shape))).reshape(shape).astype("float32")


def theirs():
    arrays = {"words": numbers(7, 3)}
    for i in range(2):
        arrays |= {f"layer.{i}.up.weight": numbers(5, 3, start=i), f"layer.{i}.up.bias": numbers(5, start=i)}
        arrays |= {f"layer.{i}.ln.g": numbers(3, start=i), f"layer.{i}.ln.b": numbers(3, start=10 + i)}
        arrays |= {f"{part}.{i}": numbers(3, 3, start=100 * at + i) for at, part in enumerate("qkv")}
        arrays |= {f"{part}b.{i}": numbers(3, start=100 * at + i) for at, part in enumerate("qkv")}
    return arrays


def test_there_and_back():
    table = NameTable(RULES, 2)
    ours, unknown = table.to_ours(theirs(), "a file")
    assert unknown == set()
    assert sorted(ours) == sorted(
        ["table", *(f"block_{i}/{n}" for i in (0, 1) for n in ("expand/kernel", "expand/bias", "norm/gamma"))]
        + [f"block_{i}/{n}" for i in (0, 1) for n in ("norm/beta", "qkv", "qkv_bias")]
    )
    again = table.to_theirs(ours, "a format")
    assert set(again) == set(theirs())
    for name, value in theirs().items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
        assert again[name].flags.c_contiguous


def test_joined_and_transposed_by_hand():
    table = NameTable([Rule("kernel", ("a", "b"), transposed=True)], 0)
    ours, _ = table.to_ours({"a": numbers(2, 3), "b": numbers(2, 3, start=10)}, "a file")
    np.testing.assert_array_equal(ours["kernel"], [[0, 3, 10, 13], [1, 4, 11, 14], [2, 5, 12, 15]])


def test_a_rule_of_which_nothing_is_there_stays_empty_and_what_no_rule_knows_is_told():
    ours, unknown = NameTable(RULES, 1).to_ours({"words": numbers(2, 3), "layer.1.ln.g": numbers(3)}, "a file")
    assert set(ours) == {"table"}
    assert unknown == {"layer.1.ln.g"}


@pytest.mark.parametrize(
    ("more", "claimed"),
    [
        (Rule("table", ("others",)), "table"),
        (Rule("tables", ("words",)), "words"),
        (Rule("block_1/qkv", ("z",)), "block_1/qkv"),
        (Rule("x", ("z", "z")), "z"),
        (Rule("x_{i}", ("z",)), "z"),
    ],
)
def test_two_claims_on_one_weight(more, claimed):
    with pytest.raises(BertKerasError, match=f"the name table claims {claimed} twice; remove one of the rules"):
        NameTable([*RULES, more], 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k.1": None}, "a file: q.1 is there, but k.1 is not"),
        ({"q.0": None, "v.0": None}, "a file: k.0 is there, but q.0, v.0 is not"),
        ({"k.1": numbers(5, 3)}, r"a file: q.1 has shape \(3, 3\), but k.1 has \(5, 3\)"),
        ({"vb.0": numbers(5)}, r"a file: qb.0 has shape \(3,\), but vb.0 has \(5,\)"),
        ({"layer.0.up.weight": numbers(5)}, r"a file: layer.0.up.weight has shape \(5,\), a matrix is needed"),
        ({"q.0": numbers(3, 3, 3)}, r"a file: q.0 has shape \(3, 3, 3\), a matrix is needed"),
        ({name: np.float32(1) for name in ("qb.0", "kb.0", "vb.0")}, "a file: qb.0 is a single number"),
    ],
)
def test_parts_that_do_not_fit(change, message):
    arrays = {name: value for name, value in (theirs() | change).items() if value is not None}
    with pytest.raises(BertKerasError, match=message):
        NameTable(RULES, 2).to_ours(arrays, "a file")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"table": numbers(2, 3), "extra": numbers(1)}, "a format has no place for extra"),
        ({"block_2/norm/gamma": numbers(3)}, "a format has no place for block_2/norm/gamma"),
        ({"block_0/qkv_bias": numbers(7)}, r"a format: block_0/qkv_bias of shape \(7,\) does not go into qb.0"),
        ({"block_0/qkv_bias": np.float32(1)}, r"a format: block_0/qkv_bias of shape \(\) does not go into qb.0"),
        ({"block_0/expand/kernel": numbers(3)}, r"expand/kernel of shape \(3,\) does not go into layer.0.up.weight"),
    ],
)
def test_what_does_not_go_there(arrays, message):
    with pytest.raises(BertKerasError, match=message):
        NameTable(RULES, 2).to_theirs(arrays, "a format")


def test_a_number_stays_a_number():
    table = NameTable([Rule("a", ("b",))], 0)
    assert table.to_theirs({"a": np.float32(3)}, "a format")["b"].shape == ()
    assert table.to_ours({"b": np.float32(3)}, "a file")[0]["a"].shape == ()
