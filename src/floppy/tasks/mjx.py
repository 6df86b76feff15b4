"""MuJoCo on accelerators: Gymnasium's robots, version 5, by MuJoCo XLA (MJX).

Models, frame skips and time limits are those of the installed Gymnasium. What its Python code does around the physics
stands in `ROBOTS`; a test steps both side by side.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floppy.errors import FloppyError, one_line
from floppy.spaces import Continuous
from floppy.tasks.base import Profile, Transition, quiet, quiet_mujoco, strong_types
from floppy.tasks.lookup import import_optional, install_hint, unknown_task
from floppy.tasks.pictures import Picture, gymnasium_picture

DESCRIPTION = (
    "Gymnasium's MuJoCo robots, version 5, as JAX tasks for GPUs: on CPUs gymnasium/ID is faster; needs "
    "pip install 'floppy-rl[mjx]'"
)

Data = Any
"""`mujoco.mjx.Data`: what the physics last computed. As in MuJoCo, places of bodies, velocities around centres of mass
and forces are those of the integrator's last stage, a moment older than `qpos` and `qvel`."""
Model = Any
"""`mujoco.mjx.Model`."""


class Made(NamedTuple):
    """A model with what Gymnasium says of it."""

    mjx: Any
    """The package `mujoco.mjx`."""
    model: Model
    frame_skip: int
    """Steps of the physics for each action."""
    step_seconds: float
    """Simulated time of an action."""
    start: tuple[jax.Array, jax.Array]
    """`qpos` `[nq]` and `qvel` `[nv]` to which noise is added where an episode starts."""
    actions: Continuous
    observation_size: int
    max_steps: int


@functools.cache
def make_model(name: str) -> Made:
    """Takes the model of robot `name` from Gymnasium, once per process.

    Raises:
      FloppyError: if Gymnasium, MuJoCo or MJX is not installed, or MJX in a version that does not fit.
    """
    # Made within a compiled function the model's arrays would have no values.
    with quiet(), jax.ensure_compile_time_eval():
        mujoco, mjx, gymnasium = (
            import_optional(module, "mjx", "Tasks mjx/... need Gymnasium, MuJoCo and MJX")
            for module in ("mujoco", "mujoco.mjx", "gymnasium")
        )
        _colliders()  # a version that has none is refused here
        with quiet_mujoco(mujoco):
            environment = gymnasium.make(ROBOTS[name].gymnasium_id)
        inner, bounds = environment.unwrapped, environment.action_space
        if inner.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:  # the Humanoids'; MJX does not have it
            inner.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        return Made(
            mjx,
            mjx.put_model(inner.model, impl="jax"),
            inner.frame_skip,
            float(inner.dt),
            (jnp.asarray(inner.init_qpos, jnp.float32), jnp.asarray(inner.init_qvel, jnp.float32)),
            Continuous(bounds.shape[0], tuple(bounds.low.tolist()), tuple(bounds.high.tolist())),
            environment.observation_space.shape[0],
            environment.spec.max_episode_steps,
        )


@contextlib.contextmanager
def _as_in_mujoco() -> Iterator[None]:
    """Silences MJX, and lets friction act along and across capsules on the floor, as MuJoCo does.

    MJX does so for lying ones only (google-deepmind/mujoco#2774). Its table is as before afterwards: Brax reads it too.
    """
    from mujoco.mjx import GeomType

    colliders, pair = _colliders(), (GeomType.PLANE, GeomType.CAPSULE)
    usual = colliders[pair]

    def collide(model: Model, data: Data, group: Any, geoms: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        distance, position, frame = usual(model, data, group, geoms)
        axis = data.geom_xmat[geoms[:, 1], :, 2]
        return distance, position, _turned(frame, jnp.repeat(axis, usual.ncon, axis=0))

    collide.ncon = usual.ncon  # type: ignore[attr-defined]
    colliders[pair] = collide
    try:
        with quiet():
            yield
    finally:
        colliders[pair] = usual


def _colliders() -> dict[Any, Any]:
    """MJX's table of what finds contacts, by the kinds of two bodies; it has no public name."""
    try:
        from mujoco.mjx._src.collision_driver import _COLLISION_FUNC
    except ImportError as error:
        raise FloppyError(
            f"Tasks mjx/... need another version of MJX ({one_line(error)}): {install_hint('mjx')}."
        ) from error
    table: dict[Any, Any] = _COLLISION_FUNC
    return table


def _turned(frame: jax.Array, axis: jax.Array) -> jax.Array:
    """Frames of contacts `[n, 3, 3]`, the normal first, turned such that `axis` `[n, 3]` has no third component."""
    normal = frame[:, 0]
    along = axis - normal * (normal * axis).sum(1, keepdims=True)
    length = jnp.linalg.norm(along, axis=1, keepdims=True)
    along = jnp.where(length > UPRIGHT, along / jnp.maximum(length, UPRIGHT), frame[:, 1])
    return jnp.stack([normal, along, jnp.cross(normal, along)], axis=1)


UPRIGHT = 1e-3
"""Sine of the angle below which a capsule stands upright: then rounding would say where it leans to."""


# --- what is observed ---


def _positions_and_velocities(data: Data, hidden: int = 1) -> jax.Array:
    """Positions but for the first `hidden`, which say where the robot is, and velocities."""
    return jnp.concatenate([data.qpos[hidden:], data.qvel])


def _with_clipped_velocities(data: Data) -> jax.Array:
    return jnp.concatenate([data.qpos[1:], jnp.clip(data.qvel, -10, 10)])


def _ant(data: Data) -> jax.Array:
    return jnp.concatenate(
        [_positions_and_velocities(data, 2), _clipped_forces(data)[1:].ravel()]
    )  # body 0 is the world


def _humanoid(data: Data) -> jax.Array:
    bodies = [each[1:].ravel() for each in (data._impl.cinert, data.cvel)]
    motors = data.qfrc_actuator[6:]
    return jnp.concatenate([_positions_and_velocities(data, 2), *bodies, motors, _forces(data)[1:].ravel()])


def _reacher(data: Data) -> jax.Array:
    angles = data.qpos[:2]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), data.qpos[2:], data.qvel[:2], _miss(data)[:2]])


def _double_pendulum(data: Data) -> jax.Array:
    angles = data.qpos[1:]
    clipped = jnp.clip(jnp.concatenate([data.qvel, data.qfrc_constraint[:1]]), -10, 10)
    return jnp.concatenate([data.qpos[:1], jnp.sin(angles), jnp.cos(angles), clipped])


def _forces(data: Data) -> jax.Array:
    """On each body from outside, torques before forces, `[bodies, 6]`."""
    forces: jax.Array = data._impl.cfrc_ext
    return forces


def _clipped_forces(data: Data) -> jax.Array:
    return jnp.clip(_forces(data), -1, 1)


def _miss(data: Data) -> jax.Array:
    """From the target, the model's last body, to the fingertip, the one before, `[3]` in m."""
    fingertip, target = data.xpos[-2:]
    return fingertip - target


# --- where a robot is along x, in m; the speed that is earned for is the difference over an action's time ---


def _first_joint(model: Model, data: Data) -> jax.Array:
    del model
    return data.qpos[0]


def _torso(model: Model, data: Data) -> jax.Array:
    del model
    return data.xpos[1, 0]


def _centre_of_mass(model: Model, data: Data) -> jax.Array:
    return model.body_mass @ data.xipos[:, 0] / model.body_mass.sum()


# --- which states do not end an episode ---


def _always(data: Data) -> jax.Array:
    del data
    return jnp.asarray(True)


def _hopper_stands(data: Data) -> jax.Array:
    height, angle = data.qpos[1], data.qpos[2]
    others = jnp.concatenate([data.qpos[2:], data.qvel])
    return (height > 0.7) & (jnp.abs(angle) < 0.2) & (jnp.abs(others) < 100).all()


def _walker_stands(data: Data) -> jax.Array:
    height, angle = data.qpos[1], data.qpos[2]
    return (height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0)


def _ant_stands(data: Data) -> jax.Array:
    height, state = data.qpos[2], jnp.concatenate([data.qpos, data.qvel])
    return jnp.isfinite(state).all() & (height >= 0.2) & (height <= 1.0)


def _humanoid_stands(data: Data) -> jax.Array:
    height = data.qpos[2]
    return (height > 1.0) & (height < 2.0)


def _tip_is_up(data: Data) -> jax.Array:
    return data.site_xpos[0, 2] > 1


# --- what is earned ---


class Moment(NamedTuple):
    """What rewards are functions of."""

    data: Data
    model: Model
    speed: jax.Array
    """`[]`, m/s along x."""
    effort: jax.Array
    """`[]`, the action's sum of squares."""
    stands: jax.Array
    """`[]` bool: whether the episode goes on."""


def _walking(now: Moment) -> jax.Array:
    return now.speed + now.stands - 1e-3 * now.effort


def _running(now: Moment) -> jax.Array:
    return now.speed - 0.1 * now.effort


def _ant_walking(now: Moment) -> jax.Array:
    return now.speed + now.stands - 0.5 * now.effort - 5e-4 * jnp.square(_clipped_forces(now.data)).sum()


def _humanoid_walking(now: Moment) -> jax.Array:
    return 1.25 * now.speed + 5 * now.stands - 0.1 * now.effort - _impact(now.data)


def _standing_up(now: Moment) -> jax.Array:
    return now.data.qpos[2] / now.model.opt.timestep + 1 - 0.1 * now.effort - _impact(now.data)


def _impact(data: Data) -> jax.Array:
    return jnp.minimum(5e-7 * jnp.square(_forces(data)).sum(), 10)


def _reaching(now: Moment) -> jax.Array:
    return -jnp.linalg.norm(_miss(now.data)) - now.effort


def _balancing(now: Moment) -> jax.Array:
    x, _, height = now.data.site_xpos[0]
    _, lower, upper = now.data.qvel
    distance = 0.01 * x**2 + (height - 2) ** 2
    return 10 * now.stands - distance - 1e-3 * lower**2 - 5e-3 * upper**2


# --- how an episode starts: what is added to `qpos` `[nq]` and `qvel` `[nv]` ---

Noise = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""From a key, `qpos` and `qvel` to those with noise."""


def _uniform(scale: float) -> Noise:
    def add(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        return (
            qpos + jax.random.uniform(first, qpos.shape, minval=-scale, maxval=scale),
            qvel + jax.random.uniform(second, qvel.shape, minval=-scale, maxval=scale),
        )

    return add


def _with_normal_velocities(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    return (
        qpos + jax.random.uniform(first, qpos.shape, minval=-0.1, maxval=0.1),
        qvel + 0.1 * jax.random.normal(second, qvel.shape),
    )


def _with_target(key: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reacher's: the target, which the last two joints hold, is anywhere within 0.2 m, and rests."""
    arm, spin, target = jax.random.split(key, 3)
    angles = qpos[:2] + jax.random.uniform(arm, (2,), minval=-0.1, maxval=0.1)
    velocities = qvel[:2] + jax.random.uniform(spin, (2,), minval=-0.005, maxval=0.005)
    place = 0.2 * jax.random.ball(target, 2)
    return jnp.concatenate([angles, place]), jnp.concatenate([velocities, jnp.zeros(2)])


class Robot(NamedTuple):
    """What Gymnasium does around the physics, with its default arguments."""

    gymnasium_id: str
    observe: Callable[[Data], jax.Array]
    reward: Callable[[Moment], jax.Array]
    noise: Noise
    stands: Callable[[Data], jax.Array] = _always
    place: Callable[[Model, Data], jax.Array] = _first_joint


ROBOTS = {
    "ant": Robot("Ant-v5", _ant, _ant_walking, _with_normal_velocities, _ant_stands, _torso),
    "halfcheetah": Robot("HalfCheetah-v5", _positions_and_velocities, _running, _with_normal_velocities),
    "hopper": Robot("Hopper-v5", _with_clipped_velocities, _walking, _uniform(5e-3), _hopper_stands),
    "humanoid": Robot("Humanoid-v5", _humanoid, _humanoid_walking, _uniform(1e-2), _humanoid_stands, _centre_of_mass),
    "humanoidstandup": Robot("HumanoidStandup-v5", _humanoid, _standing_up, _uniform(1e-2)),
    "inverted_double_pendulum": Robot(
        "InvertedDoublePendulum-v5", _double_pendulum, _balancing, _with_normal_velocities, _tip_is_up
    ),
    "reacher": Robot("Reacher-v5", _reacher, _reaching, _with_target),
    "walker2d": Robot("Walker2d-v5", _with_clipped_velocities, _walking, _uniform(5e-3), _walker_stands),
}
"""By the names that Brax gives them."""


class MjxState(NamedTuple):
    """What the physics goes on from, and what rewards compare with."""

    qpos: jax.Array
    """`[nq]`"""
    qvel: jax.Array
    """`[nv]`"""
    qacc_warmstart: jax.Array
    """`[nv]`: accelerations at which the solver of constraints begins."""
    place: jax.Array
    """`[]`: where the robot was seen last, in m."""
    steps: jax.Array
    """`[]` int: steps taken."""


@dataclasses.dataclass(frozen=True)
class MjxTask:
    """Gymnasium's robot `name` of version 5, on MJX."""

    name: str
    package: str = "mujoco-mjx"

    def __post_init__(self) -> None:
        """Checks the name, and that the packages are installed."""
        if self.name not in ROBOTS:
            raise FloppyError(f"MJX has no robot {self.name} here: choose from {', '.join(ROBOTS)}.")
        make_model(self.name)

    @property
    def task_id(self) -> str:
        """`mjx/NAME`."""
        return f"mjx/{self.name}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[o]`."""
        return (make_model(self.name).observation_size,)

    @property
    def actions(self) -> Continuous:
        """Within the model's bounds."""
        return make_model(self.name).actions

    @property
    def max_steps(self) -> int:
        """Gymnasium's time limit."""
        return make_model(self.name).max_steps

    @property
    def max_return(self) -> None:
        """Not known: Gymnasium's reward thresholds are no maxima."""
        return

    @property
    def profile(self) -> Profile:
        """That of continuous actions, with steps of much physics."""
        return Profile("continuous", is_slow=True)

    @property
    def picture(self) -> Picture:
        """The body, posed."""
        return picture(self.name)

    def reset(self, key: jax.Array) -> tuple[MjxState, jax.Array]:
        """Starts an episode."""
        return self.started(*ROBOTS[self.name].noise(key, *make_model(self.name).start))

    def started(self, qpos: jax.Array, qvel: jax.Array) -> tuple[MjxState, jax.Array]:
        """The state and the observation of an episode that starts with these positions and velocities."""
        robot, made = ROBOTS[self.name], make_model(self.name)
        with _as_in_mujoco():
            data = made.mjx.forward(made.model, made.mjx.make_data(made.model).replace(qpos=qpos, qvel=qvel))
            data = data.replace(qpos=qpos)  # MJX has normalised quaternions in it, which MuJoCo does after a step
            return self._state(data, jnp.zeros((), jnp.int32)), strong_types(robot.observe(data))

    def step(self, key: jax.Array, state: MjxState, action: jax.Array) -> Transition:
        """Takes one action; the physics is deterministic, `key` is not used."""
        del key
        robot, made = ROBOTS[self.name], make_model(self.name)
        with _as_in_mujoco():
            data = self._moved(state, action)
            following = self._state(data, state.steps + 1)
            stands = robot.stands(data)
            speed = (following.place - state.place) / made.step_seconds
            now = Moment(data, made.model, speed, jnp.square(action).sum(), stands)
            return Transition(
                following,
                robot.observe(data),
                robot.reward(now),
                ~stands,
                following.steps >= made.max_steps,
            )

    def _moved(self, state: MjxState, action: jax.Array) -> Data:
        """The physics after an action, with the forces on bodies."""
        mjx, model, frame_skip, *_ = make_model(self.name)
        data = mjx.make_data(model).replace(
            qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc_warmstart, ctrl=action
        )
        data = jax.lax.fori_loop(0, frame_skip, lambda _, data: mjx.step(model, data), strong_types(data))
        return mjx.rne_postconstraint(model, data)

    def _state(self, data: Data, steps: jax.Array) -> MjxState:
        place = ROBOTS[self.name].place(make_model(self.name).model, data)
        return MjxState(data.qpos, data.qvel, data.qacc_warmstart, place, steps)


def make(rest: str) -> MjxTask:
    """The task `mjx/rest`."""
    if rest not in ROBOTS:
        raise unknown_task(f"mjx/{rest}", [f"mjx/{name}" for name in ROBOTS])
    return MjxTask(rest)


def picture(rest: str) -> Picture:
    """How `mjx/rest` is drawn: as Gymnasium's."""
    return gymnasium_picture(ROBOTS[rest].gymnasium_id) if rest in ROBOTS else Picture()


def names() -> list[str]:
    """All of them."""
    return list(ROBOTS)
