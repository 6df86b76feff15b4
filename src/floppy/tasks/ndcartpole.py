"""N-dimensional cart-pole (PPMO, section 5.1): N carts on N axes, of which each action pushes only one."""

import dataclasses
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floppy.errors import FloppyError, shown
from floppy.spaces import Discrete
from floppy.tasks.base import Profile, Transition
from floppy.tasks.pictures import Picture, cart_pole

DESCRIPTION = "cart-pole in N dimensions, ndcartpole/N for every N from 1"
SHORT_NAMES = {"cartpole": "1"}

# The constants of Gymnasium's CartPole-v1, in SI units.
GRAVITY = 9.8
CART_MASS = 1.0
POLE_MASS = 0.1
TOTAL_MASS = CART_MASS + POLE_MASS
HALF_POLE_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_POLE_LENGTH
FORCE = 10.0
TIME_STEP = 0.02
POSITION_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * math.pi / 360
START_RANGE = 0.05


class CartPoleState(NamedTuple):
    """`N` is the number of dimensions."""

    physics: jax.Array
    """`[N, 4]`: position (m), velocity (m/s), angle (rad), angular velocity (rad/s) of each dimension."""
    time: jax.Array
    """`[]` int: steps taken in this episode."""


def accelerate(physics: jax.Array, force: jax.Array) -> jax.Array:
    """One Euler step of independent cart-poles; the arithmetic of Gymnasium's CartPole-v1 in each dimension.

    Args:
      physics: `[N, 4]`.
      force: `[N]`, newton.

    Returns:
      `[N, 4]` after `TIME_STEP` seconds.
    """
    _, velocity, angle, angular_velocity = jnp.moveaxis(physics, -1, 0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + POLE_MASS_LENGTH * angular_velocity**2 * sin) / TOTAL_MASS
    angular_acceleration = (GRAVITY * sin - cos * push) / (
        HALF_POLE_LENGTH * (4.0 / 3.0 - POLE_MASS * cos**2 / TOTAL_MASS)
    )
    acceleration = push - POLE_MASS_LENGTH * angular_acceleration * cos / TOTAL_MASS
    rate = jnp.stack([velocity, acceleration, angular_velocity, angular_acceleration], axis=-1)
    return physics + TIME_STEP * rate


@dataclasses.dataclass(frozen=True)
class NDCartPole:
    """Cart-pole in `dimensions` dimensions; `ndcartpole/1` has the dynamics of Gymnasium's CartPole-v1.

    Action `a` pushes dimension `a // 2` only: even -10 N, odd +10 N. Reward 1 per step. Terminated when any dimension
    leaves ±2.4 m or ±12 degrees; truncated after 500 steps. Starts uniform in ±0.05.
    The observation `[4 N]` lists position, velocity, angle, angular velocity of each dimension in turn.
    """

    dimensions: int
    max_steps: int = 500
    package: str = "floppy"

    @property
    def task_id(self) -> str:
        """`ndcartpole/N`."""
        return f"ndcartpole/{self.dimensions}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`(4 N,)`."""
        return (4 * self.dimensions,)

    @property
    def actions(self) -> Discrete:
        """`2 N` actions."""
        return Discrete(2 * self.dimensions)

    @property
    def profile(self) -> Profile:
        """Recipes of its own."""
        return Profile("cartpole", dimensions=self.dimensions)

    @property
    def picture(self) -> Picture:
        """Carts and poles."""
        return cart_pole(self.dimensions)

    @property
    def max_return(self) -> float:
        """One per step of a full episode."""
        return float(self.max_steps)

    def reset(self, key: jax.Array) -> tuple[CartPoleState, jax.Array]:
        """Every quantity uniform in ±0.05."""
        physics = jax.random.uniform(key, (self.dimensions, 4), minval=-START_RANGE, maxval=START_RANGE)
        return CartPoleState(physics, jnp.zeros((), jnp.int32)), physics.ravel()

    def step(self, key: jax.Array, state: CartPoleState, action: jax.Array) -> Transition:
        """Pushes one dimension for one time step. The dynamics are deterministic: `key` is unused."""
        del key
        pushed = jnp.arange(self.dimensions) == action // 2
        force = jnp.where(pushed, jnp.where(action % 2 == 1, FORCE, -FORCE), 0.0)
        physics = accelerate(state.physics, force)
        time = state.time + 1
        limits = jnp.array([POSITION_LIMIT, jnp.inf, ANGLE_LIMIT, jnp.inf])
        terminated = jnp.any(jnp.abs(physics) > limits[None])
        return Transition(
            CartPoleState(physics, time), physics.ravel(), jnp.ones(()), terminated, time >= self.max_steps
        )


def make(rest: str) -> NDCartPole:
    """The task `ndcartpole/rest`."""
    if not re.fullmatch("[1-9][0-9]{0,3}", rest):
        raise FloppyError(
            f"ndcartpole/{shown(rest)} is no task: give a number of dimensions from 1 to 9999, as in ndcartpole/2."
        )
    return NDCartPole(int(rest))


def picture(rest: str) -> Picture:
    """How `ndcartpole/rest` is drawn."""
    return make(rest).picture


def names() -> list[str]:
    """The five of the PPMO paper."""
    return [str(dimensions) for dimensions in range(1, 6)]
