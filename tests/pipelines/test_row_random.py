import numpy as np
import tensorflow as tf

from bertkeras.pipelines.row_random import mix, row_uniform


def draws(seed=0, purpose="mask", rows=range(1000), columns=128):
    return row_uniform(seed, purpose, tf.constant(list(rows), tf.int64), columns).numpy()


def test_mix_is_the_finaliser_of_splitmix64():
    # First outputs of SplitMix64 with state 0, worked out in Python integers from the published recurrence.
    state, expected = 0, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        expected.append(z ^ (z >> 31))
    assert expected[0] == 0xE220A8397B1DCDAF  # the published first output
    states = tf.constant([(k + 1) * 0x9E3779B97F4A7C15 % 2**64 for k in range(3)], tf.uint64)
    assert mix(states).numpy().tolist() == expected


def test_a_row_has_the_same_numbers_in_any_batch():
    whole = draws(rows=range(20))
    np.testing.assert_array_equal(draws(rows=[17, 3]), whole[[17, 3]])
    np.testing.assert_array_equal(draws(rows=range(20), columns=7), whole[:, :7])


def test_seed_and_purpose_change_everything():
    base = draws()
    for other in (draws(seed=1), draws(purpose="other"), draws(rows=range(1000, 2000))):
        assert (base == other).mean() < 0.01
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.012  # 4 / sqrt(128,000) = 0.011


def test_numbers_are_uniform_and_uncorrelated():
    numbers = draws(rows=range(8000))  # 1,024,000 numbers
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 10240) ** 2 / 10240).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom: mean 99, standard deviation 14
    for axis in (0, 1):
        a, b = np.delete(numbers, 0, axis), np.delete(numbers, -1, axis)
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.004  # 4 standard deviations


def test_rows_beyond_32_bits_differ():
    assert (draws(rows=[5]) != draws(rows=[5 + 2**32])).any()
