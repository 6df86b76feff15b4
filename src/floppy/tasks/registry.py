"""Task ids: `family/name`, short names, and the nearest name for a wrong one."""

import difflib
import importlib
import re
from collections.abc import Callable, Iterable

from floppy.errors import FloppyError, one_line, shown
from floppy.tasks.base import Task

SHORT_NAMES = {
    "cartpole": "ndcartpole/1",
    "acrobot": "gymnax/Acrobot-v1",
    "mountaincar": "gymnax/MountainCar-v0",
    "pendulum": "gymnax/Pendulum-v1",
    "asterix": "gymnax/Asterix-MinAtar",
    "breakout": "gymnax/Breakout-MinAtar",
    "freeway": "gymnax/Freeway-MinAtar",
    "space-invaders": "gymnax/SpaceInvaders-MinAtar",
    "centipede": "ale/centipede",
    "ms-pacman": "ale/ms_pacman",
    "pong": "ale/pong",
    "digits": "images/digits",
    "mnist": "images/mnist",
    "fashion-mnist": "images/fashion-mnist",
    "ant": "brax/ant",
    "halfcheetah": "brax/halfcheetah",
    "hopper": "brax/hopper",
    "humanoid": "brax/humanoid",
    "humanoidstandup": "brax/humanoidstandup",
    "inverted-double-pendulum": "brax/inverted_double_pendulum",
    "inverted-pendulum": "brax/inverted_pendulum",
    "reacher": "brax/reacher",
    "walker2d": "brax/walker2d",
}
"""Short names that the command line and `make_task` accept in place of a full id."""


def full_task_id(name: str) -> str:
    """The id that a short name stands for; any other name as it is."""
    return SHORT_NAMES.get(name.lower(), name)


def make_task(name: str) -> Task:
    """The task of an id such as `ndcartpole/3` or `gymnax/Acrobot-v1`, or of a short name such as `cartpole`.

    Raises:
      FloppyError: if no task has this name; the message offers the nearest one.
    """
    family, _, rest = full_task_id(name).partition("/")
    if family not in FAMILIES or not rest:
        raise _unknown(name, [*SHORT_NAMES, *(f"ndcartpole/{n}" for n in range(1, 6))])
    return FAMILIES[family](rest)


def register(name_prefix: str, factory: Callable[[str], Task]) -> None:
    """Adds a family of tasks of your own: `name_prefix/REST` then stands for `factory(REST)`.

    Environments that are registered with Gymnasium need this not: `gymnasium/ID` finds them.

    Args:
      name_prefix: of the ids, without a slash.
      factory: makes the task, a `JaxTask`, a `HostTask` or a `SupervisedTask`, of which `task_id` is
        `name_prefix/REST`; raises `FloppyError` for a REST that it does not know.

    Raises:
      FloppyError: if the prefix is taken or no plain word.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name_prefix):
        raise FloppyError(
            f"Tasks cannot be registered as {shown(name_prefix)}: give a prefix of letters, digits, _, . and -."
        )
    if name_prefix in FAMILIES:
        raise FloppyError(f"Tasks are registered as {name_prefix}/... already: choose another prefix.")
    FAMILIES[name_prefix] = factory


def import_module(name: str) -> None:
    """Imports a module of the user's, which may register environments.

    Raises:
      FloppyError: if it cannot be imported, whatever the reason.
    """
    try:
        importlib.import_module(name)
    except Exception as error:  # the module's own code may raise anything
        is_absent = isinstance(error, ModuleNotFoundError) and error.name is not None and name.startswith(error.name)
        if name.endswith(".py"):
            remedy = f"give its name without the ending, {name.removesuffix('.py')}"
        elif is_absent:
            remedy = "put it in the folder in which you start floppy, or install it"
        else:
            remedy = "mend the module"
        raise FloppyError(
            f"Module {shown(name)} could not be imported ({type(error).__name__}: {one_line(error)}): {remedy}."
        ) from error


def list_tasks() -> list[str]:
    """The ids of all known tasks.

    `ndcartpole/N` also exists for every other N >= 1, `brax/NAME/BACKEND` for the backends spring and generalized,
    `gymnasium/ID` for every environment that is registered with Gymnasium, has a time limit and suitable spaces, and
    `ale/GAME/sticky` with sticky actions. `ale/GAME` is listed where ale-py is installed. `images/FILE.npz` exists for
    every file with images and labels.
    """
    from floppy.tasks import ale, brax, gymnasium, images

    return [
        *(f"ndcartpole/{n}" for n in range(1, 6)),
        *(f"gymnax/{name}" for name in _gymnax_names()),
        *(f"brax/{name}" for name in brax.NAMES),
        *(f"gymnasium/{name}" for name in gymnasium.likely_names()),
        *(f"ale/{name}" for name in ale.game_names()),
        *(f"images/{name}" for name in images.NAMES),
    ]


def _make_ndcartpole(rest: str) -> Task:
    from floppy.tasks.ndcartpole import NDCartPole

    if not re.fullmatch("[1-9][0-9]{0,3}", rest):
        raise FloppyError(
            f"ndcartpole/{shown(rest)} is no task: give a number of dimensions from 1 to 9999, as in ndcartpole/2."
        )
    return NDCartPole(int(rest))


def _make_gymnax(rest: str) -> Task:
    names = _gymnax_names()
    if rest not in names:
        raise _unknown(f"gymnax/{rest}", [f"gymnax/{name}" for name in names])
    from floppy.tasks.gymnax import GymnaxTask

    return GymnaxTask(rest)


def _make_brax(rest: str) -> Task:
    from floppy.tasks.brax import BACKENDS, NAMES, BraxTask

    name, slash, backend = rest.partition("/")
    if name not in NAMES or (slash and backend not in BACKENDS):
        known = [f"brax/{name}{suffix}" for name in NAMES for suffix in ("", *(f"/{b}" for b in BACKENDS))]
        raise _unknown(f"brax/{rest}", known)
    return BraxTask(name, backend or BACKENDS[0])


def _make_gymnasium(rest: str) -> Task:
    from floppy.tasks import gymnasium

    if not gymnasium.is_registered(rest):
        raise _unknown(f"gymnasium/{rest}", [f"gymnasium/{name}" for name in gymnasium.registered_names()])
    return gymnasium.GymnasiumTask(rest)


def _make_ale(rest: str) -> Task:
    from floppy.tasks import ale

    ale.require()
    names = ale.game_names()
    game, slash, setting = rest.partition("/")
    if game not in names or (slash and setting != ale.STICKY):
        known = [f"ale/{name}{suffix}" for name in names for suffix in ("", f"/{ale.STICKY}")]
        raise _unknown(f"ale/{rest}", known)
    return ale.AtariTask(game, sticky=bool(slash))


def _make_images(rest: str) -> Task:
    from floppy.tasks.images import NAMES, image_task

    if rest not in NAMES and not rest.endswith(".npz"):
        raise _unknown(f"images/{rest}", [f"images/{name}" for name in NAMES])
    return image_task(rest)


def _gymnax_names() -> list[str]:
    import gymnax

    return list(gymnax.registered_envs)


FAMILIES: dict[str, Callable[[str], Task]] = {
    "ndcartpole": _make_ndcartpole,
    "gymnax": _make_gymnax,
    "brax": _make_brax,
    "gymnasium": _make_gymnasium,
    "ale": _make_ale,
    "images": _make_images,
}
"""What makes the tasks of a family from the rest of their ids; `register` adds to it."""


def _unknown(name: str, known: Iterable[str]) -> FloppyError:
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    offer = f"did you mean {by_lower[nearest[0]]}? " if nearest else ""
    own = " --import MODULE brings environments of your own." if name.startswith("gymnasium/") else ""
    return FloppyError(f"There is no task {shown(name)}: {offer}`floppy tasks` lists them all.{own}")
