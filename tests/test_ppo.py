"""PPO's small functions against numbers worked out by hand and slow twins in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floppy.outer.ppmo import ppo
from floppy.outer.ppmo.ppo import clipped_surrogate, discounted_returns, gae, published_gae, standardise, value_loss

pytestmark = pytest.mark.usefixtures("no_nans")


def column(*entries: float) -> jax.Array:
    return jnp.asarray(entries, jnp.float32)


def flags(*entries: int) -> jax.Array:
    return jnp.asarray(entries, bool)


NEVER = flags(0, 0, 0)
ZEROS = column(0, 0, 0)


def test_gae_credits_every_step_of_the_episode_that_ends():
    advantages = gae(column(0, 0, 1), ZEROS, ZEROS, flags(0, 0, 1), NEVER, discount=1.0, gae_lambda=1.0)
    np.testing.assert_array_equal(advantages, [1, 1, 1])


def test_published_gae_reads_the_end_one_step_late():
    advantages = published_gae(column(0, 0, 1), ZEROS, jnp.asarray(0.0), flags(0, 0, 1), discount=1.0, gae_lambda=1.0)
    np.testing.assert_array_equal(advantages, [0, 0, 1])


def test_published_gae_by_hand():
    # Ends as the published code reads them: 1, 0, 0. δ = 1 - 1, 1 + 3/2 - 2, 1 + 4/2 - 3 = 0, 1/2, 0.
    advantages = published_gae(
        column(1, 1, 1), column(1, 2, 3), jnp.asarray(4.0), flags(0, 1, 0), discount=0.5, gae_lambda=0.5
    )
    np.testing.assert_array_equal(advantages, [0, 0.5, 0])


@pytest.mark.parametrize(
    ("terminated", "truncated", "first"),
    [
        (0, 0, 2.9375),  # 1 + 4/2 - 1/2 + 1/4 · 1.75: goes on into the second step
        (0, 1, 2.5),  # 1 + 4/2 - 1/2: the state reached keeps its value, the next episode's advantage stays out
        (1, 0, 0.5),  # 1 - 1/2: nothing follows
        (1, 1, 0.5),  # a termination in the last step allowed is a termination
    ],
)
def test_truncation_keeps_the_value_of_the_state_reached_and_termination_does_not(
    terminated: int, truncated: int, first: float
):
    advantages = gae(
        column(1, 1),
        column(0.5, 0.25),
        column(4, 2),
        flags(terminated, 0),
        flags(truncated, 0),
        discount=0.5,
        gae_lambda=0.5,
    )
    np.testing.assert_array_equal(advantages, [first, 1.75])  # second step: 1 + 2/2 - 1/4


def test_gae_without_values_and_full_lambda_is_the_discounted_return_of_each_episode():
    rewards = column(1, 2, 4, 8)
    ends = flags(0, 1, 0, 0)
    nothing = jnp.zeros(4)
    advantages = gae(rewards, nothing, nothing, ends, jnp.zeros(4, bool), discount=0.5, gae_lambda=1.0)
    np.testing.assert_array_equal(advantages, [2, 2, 8, 8])


@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_gae_equals_its_slow_twin(discount: float, gae_lambda: float, seed: int):
    random = np.random.default_rng(seed)
    steps, episodes = 12, (2, 3)
    rewards, values, next_values = random.normal(size=(3, steps, *episodes))
    terminated, truncated = random.random((2, steps, *episodes)) < 0.15
    expected = np.zeros((steps, *episodes))
    for i, j in np.ndindex(*episodes):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):  # A_t = Σ (γλ)^l δ_{t+l}, up to the end of the episode
                reached = 0.0 if terminated[t, i, j] else next_values[t, i, j]
                delta = rewards[t, i, j] + discount * reached - values[t, i, j]
                expected[start, i, j] += weight * delta
                weight *= discount * gae_lambda
                if terminated[t, i, j] or truncated[t, i, j]:
                    break
    found = jax.jit(gae)(
        rewards,
        values,
        next_values,
        terminated,
        truncated,
        discount=discount,
        gae_lambda=gae_lambda,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_discounted_returns_by_hand():
    # 1 + 4/2 = 3; 2 + 3/2 = 3.5, where the episode ends; 4; 8 + 4/2 = 10.
    after, sums = discounted_returns(column(1, 2, 4, 8), flags(0, 1, 0, 0), jnp.asarray(4.0), discount=0.5)
    np.testing.assert_array_equal(sums, [3, 3.5, 4, 10])
    assert after == 10
    after, _ = discounted_returns(column(1), flags(1), jnp.asarray(4.0), discount=0.5)
    assert after == 0, "the next call begins an episode"


def test_discounted_returns_equal_their_slow_twin_however_they_are_cut():
    random = np.random.default_rng(0)
    rewards, ended = random.normal(size=(12, 2)).astype(np.float32), random.random((12, 2)) < 0.3
    expected = np.zeros((12, 2))
    for environment in range(2):
        total = 0.0
        for t in range(12):
            total = 0.9 * total + rewards[t, environment]
            expected[t, environment] = total
            total = 0.0 if ended[t, environment] else total
    between, first = discounted_returns(rewards[:5], ended[:5], jnp.zeros(2), discount=0.9)
    _, second = discounted_returns(rewards[5:], ended[5:], between, discount=0.9)
    np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, 0.0),  # a good action made likelier than the clip allows: no further push
        (1.5, -1.0, 1.5, 1.0),  # a bad one made likelier: pushed back
        (0.5, 1.0, -0.5, -1.0),  # a good one made less likely: pushed back
        (0.5, -1.0, 0.8, 0.0),  # a bad one made less likely than the clip allows: no further push
        (1.1, 2.0, -2.2, -2.0),  # inside the clip: the plain policy gradient
        (0.9, -2.0, 1.8, 2.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, gradient: float):
    found = jax.value_and_grad(clipped_surrogate)(column(ratio), column(advantage), 0.2)
    assert float(found[0]) == pytest.approx(loss)
    assert float(found[1][0]) == pytest.approx(gradient, abs=1e-12)


def test_clipped_surrogate_is_a_mean():
    loss = clipped_surrogate(column(1.5, 1.5, 0.5, 0.5), column(1, -1, 1, -1), 0.2)
    assert float(loss) == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8) / 4)


def test_value_loss_by_hand():
    loss, gradient = jax.value_and_grad(value_loss)(column(1, 2, 4), column(1, 0, 1))
    assert float(loss) == pytest.approx((0 + 4 + 9) / 6)
    np.testing.assert_allclose(gradient, [0, 2 / 3, 1], rtol=1e-6)


def test_standardise_over_all_entries():
    found = standardise(jnp.asarray([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(found, np.array([[-1.5, -0.5], [0.5, 1.5]]) / np.sqrt(1.25), rtol=1e-6)


def test_standardise_of_equal_entries_is_zero():
    np.testing.assert_array_equal(standardise(jnp.full(5, 3.0)), np.zeros(5))


@pytest.mark.parametrize("count", [1, 2, 5, 64, 300])
def test_shuffled_holds_every_sample_once(count: int):
    orders = ppo.shuffled(jax.random.key(0), count, 3)
    assert orders.shape == (3, count)
    np.testing.assert_array_equal(jnp.sort(orders, axis=1), jnp.tile(jnp.arange(count), (3, 1)))


def test_many_samples_are_shuffled_the_usual_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ppo, "MOST_PACKED", 4)
    orders = ppo.shuffled(jax.random.key(0), 5, 2)
    np.testing.assert_array_equal(jnp.sort(orders, axis=1), jnp.tile(jnp.arange(5), (2, 1)))


def test_every_sample_comes_to_every_place_equally_often():
    """Of 3 samples in 6,000 orders: each of the 6 orders about 1,000 times, with a standard deviation of 29."""
    orders = np.asarray(ppo.shuffled(jax.random.key(1), 3, 6_000))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.shape == (6,)
    assert np.abs(counts - 1_000).max() < 150
