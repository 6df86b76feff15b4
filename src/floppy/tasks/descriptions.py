"""What tasks are about, in a sentence for people who have never met them."""

import inspect
import re
import textwrap

from floppy.tasks.base import Task, card_task

_HOP = "Hop forward on one leg without falling; speed earns, and every step without a fall."
_DOUBLE = "Keep two poles, one on top of the other, upright on a cart."
_SENTENCES = {
    "cartpole": "Keep a pole upright that stands on a cart, by pushing the cart; every step earns 1.",
    "pendulum": "Swing a pendulum up and keep it upright with a weak motor.",
    "acrobot": "Swing the tip of a two-link arm above a line, with a motor at the joint between the links.",
    "mountaincar": "Drive an underpowered car out of a valley by swinging back and forth.",
    "mountaincarcontinuous": "Drive an underpowered car out of a valley by swinging back and forth.",
    "lunarlander": "Land a spacecraft on a pad with its engines.",
    "lunarlandercontinuous": "Land a spacecraft on a pad with its engines.",
    "breakoutminatar": "Clear bricks with a bouncing ball that a paddle must not miss; a brick earns 1.",
    "asterixminatar": "Collect gold and keep away from enemies; a piece of gold earns 1.",
    "freewayminatar": "Cross a road between cars; a crossing earns 1.",
    "spaceinvadersminatar": "Shoot rows of aliens before they land; an alien earns 1.",
    "seaquestminatar": "Rescue divers with a submarine among enemies.",
    "hopper": _HOP,
    "walker2d": "Walk forward on two legs without falling; speed earns, and every step without a fall.",
    "halfcheetah": "Run forward as fast as possible on two legs.",
    "ant": "Walk forward on four legs.",
    "humanoid": "Walk forward on two legs without falling, as a body with arms.",
    "humanoidstandup": "Stand up from lying on the ground.",
    "reacher": "Reach a target with the tip of a two-link arm.",
    "invertedpendulum": "Keep a pole upright that stands on a cart.",
    "inverteddoublependulum": _DOUBLE,
    "swimmer": "Swim forward as a chain of three links.",
    "centipede": "The Atari game: shoot a centipede before it reaches the bottom.",
    "spaceinvaders": "The Atari game: shoot rows of aliens before they land.",
    "mspacman": "The Atari game: eat all pellets of a maze and keep away from ghosts.",
    "pong": "The Atari game: table tennis against the computer.",
    "breakout": "The Atari game: clear bricks with a bouncing ball that a paddle must not miss.",
    "digits": "Say which digit an image of handwriting shows.",
    "mnist": "Say which digit an image of handwriting shows.",
    "fashionmnist": "Say which piece of clothing an image shows.",
}
"""By the names of environments in small letters, without their versions; libraries share them."""


MOST_LETTERS = 300


def description_of(task: Task) -> str:
    """What a task is about, in a sentence or two; empty where nothing is known.

    That is its own `description`, or what is known of an environment of its name, or the first paragraph of the
    docstring of its class, if that is not one of this library's.
    """
    own = getattr(task, "description", "")
    if isinstance(own, str) and own:
        return own
    family, _, name = card_task(task).partition("?")[0].partition("/")
    name = re.sub(r"-v[0-9]+$", "", name.rpartition(":")[2])
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = _SENTENCES.get(plain.removesuffix("sticky")) or _SENTENCES.get(family.removeprefix("nd"), "")
    return known or ("" if type(task).__module__.startswith("floppy.") else first_paragraph(type(task)))


def first_paragraph(kind: type) -> str:
    """Of a class's own docstring, without headings; not the one that a dataclass gets by itself."""
    text = inspect.cleandoc(kind.__doc__ or "")
    if text.startswith(f"{kind.__name__}("):
        return ""
    paragraph = re.sub(r"^#.*\n+", "", text).partition("\n\n")[0]
    return textwrap.shorten(paragraph, MOST_LETTERS, placeholder=" …")
