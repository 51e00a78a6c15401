"""Random numbers addressed by row, so that a row gets the same ones however rows are batched or skipped."""

from __future__ import annotations

from typing import Any

# Odd constants of SplitMix64 (Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators)
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def row_uniform(seed: int, purpose: str, rows: Any, columns: int) -> Any:
    """Uniform numbers in [0, 1), a pure function of `(seed, purpose, row number, column)`.

    `tf.random.stateless_uniform` takes one seed for a whole tensor; here every row has its own. The generator is
    the finaliser of SplitMix64 applied twice: to the row's key, and to the key plus the column's offset.

    Args:
        seed: Any integer; 0 is one.
        purpose: Names the use, so that two uses in one row are independent.
        rows: `(batch,)` int64 row numbers.
        columns: Numbers per row.

    Returns:
        `(batch, columns)` float32.
    """
    import tensorflow as tf

    key = tf.bitcast(tf.cast(rows, tf.int64), tf.uint64) * constant(GAMMA) + constant(_hash(seed, purpose))
    offsets = tf.cast(tf.range(1, columns + 1), tf.uint64) * constant(GAMMA)
    bits = mix(mix(key)[:, None] + offsets[None, :])
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.float32) * 2.0**-24


def content_number(ids: Any) -> Any:
    """A number for each row of `(batch, length)` integers that depends on what stands in it and where: int64."""
    import tensorflow as tf

    places = tf.cast(tf.range(1, tf.shape(ids)[1] + 1), tf.uint64) * constant(GAMMA)
    keys = mix(tf.bitcast(tf.cast(ids, tf.int64), tf.uint64) + mix(places)[None])
    return tf.bitcast(tf.reduce_sum(keys, axis=1), tf.int64)


def mix(z: Any) -> Any:
    """The finaliser of SplitMix64 on a uint64 tensor."""
    import tensorflow as tf

    for shift, factor in ((30, MIX_1), (27, MIX_2)):
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64))) * constant(factor)
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(31, tf.uint64)))


def constant(value: int) -> Any:
    import tensorflow as tf

    return tf.constant(value % 2**64, tf.uint64)


def _hash(seed: int, purpose: str) -> int:
    """A 64-bit key of the seed and the purpose, the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little")
