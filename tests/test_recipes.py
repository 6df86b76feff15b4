"""Every recipe builds a valid configuration for every kind of task."""

import dataclasses
import json
from typing import Any

import jax
import pytest

from floppy.cli import Distill
from floppy.cloning import AdamSteps, GradientStep, ImplicitStep
from floppy.distill import DistillConfig
from floppy.errors import FloppyError
from floppy.outer import OUTER_LOOPS, PPMO, HaDES
from floppy.recipes import RECIPES, ppo_baseline, recipe
from floppy.tasks import Continuous, make_task

TASKS = ["cartpole", "ndcartpole/1", "ndcartpole/3", "gymnax/Acrobot-v1", "pendulum"]
KINDS = {"hades-brax": "continuous", "hades-minatar": "discrete"}
"""Recipes for one kind of actions only."""

FOR_EPISODES = [name for name in RECIPES if name != "supervised"]
"""Recipes for tasks with episodes; tests/test_images.py has the other one."""


def fits(name: str, task: str) -> bool:
    kind = "continuous" if isinstance(make_task(task).actions, Continuous) else "discrete"
    return KINDS.get(name, kind) == kind


def assert_valid(config: DistillConfig, task: str) -> None:
    problem = config.problem()
    assert problem.task == make_task(task)
    assert problem.examples == config.examples
    assert problem.outer_steps == config.outer_steps
    assert problem.encoder_layers == config.encoder_layers
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: config.outer.init(problem, key))
    after, info = jax.eval_shape(lambda state: config.outer.step(problem, state, key), state)
    assert jax.tree.all(jax.tree.map(lambda old, new: (old.shape, old.dtype) == (new.shape, new.dtype), state, after))
    assert info["env_steps"].shape == ()
    if isinstance(config.outer, PPMO):
        played = sum(group.returns.size for group in state.environments)
        assert played == config.outer.learners * config.outer.environments
    entry = json.loads(json.dumps(config.as_dict(), allow_nan=False))
    assert entry == config.as_dict()
    assert entry["task"] == make_task(task).task_id
    assert entry["outer"].pop("kind") == type(config.outer).__name__
    assert entry["cloning"].pop("kind") == type(config.cloning).__name__
    # All that the configuration holds, and so enough to build it again.
    parts = {"outer": type(config.outer)(**entry["outer"]), "cloning": type(config.cloning)(**entry["cloning"])}
    assert DistillConfig(**(entry | parts)) == config


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", FOR_EPISODES)
def test_every_recipe_builds_for_every_task(name: str, task: str) -> None:
    config = recipe(task, name)
    if not fits(name, task):
        with pytest.raises(FloppyError, match=f"Loss {config.cloning.loss} was asked for with .* actions"):
            config.problem()
        return
    assert_valid(config, task)
    assert config.outer.name == name.partition("-")[0]
    assert type(config.outer) is OUTER_LOOPS[config.outer.name]


@pytest.mark.parametrize("task", TASKS)
def test_the_baseline_builds_for_every_task(task: str) -> None:
    config = ppo_baseline(task)
    assert_valid(config, task)
    assert config.examples == 0
    assert config.encoder_layers == config.problem().learners[0].layers
    assert config.outer.learners == 1


def test_the_default_is_ppmo() -> None:
    assert recipe("ndcartpole/2") == recipe("ndcartpole/2", "ppmo") == RECIPES["ppmo"]("ndcartpole/2")


@pytest.mark.parametrize("task", ["breakout", "pendulum"])
@pytest.mark.parametrize("layers", [1, 2])
def test_encoders_leave_a_valid_recipe(task: str, layers: int) -> None:
    config = recipe(task, encoder_layers=layers, distribution="width=8:depth=1", examples=0 if layers == 2 else None)
    assert_valid(config, task)
    assert config.examples == {("breakout", 1): 16, ("pendulum", 1): 64}.get((task, layers), 0)


def test_continuous_actions_get_scaled_observations_and_rewards_and_stay_random() -> None:
    outer = recipe("pendulum").outer
    assert isinstance(outer, PPMO)
    assert outer.normalise_observations
    assert outer.normalise_rewards
    assert outer.least_std == 0.3


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_cart_poles_get_the_papers_least_number_of_examples(dimensions: int) -> None:
    assert recipe(f"ndcartpole/{dimensions}").examples == dimensions + 1


def test_the_robust_recipe_is_for_many_architectures() -> None:
    learners = recipe("cartpole", "ppmo-robust").problem().learners
    assert len(learners) == 6
    assert sum(not learner.is_fixed for learner in learners) == 2


def test_the_robust_recipe_shares_learners_equally_and_leaves_images_alone() -> None:
    assert [recipe(task, "ppmo-robust").outer.learners for task in ("cartpole", "pendulum")] == [24, 6]
    with pytest.raises(FloppyError, match="leave --recipe out"):
        recipe("breakout", "ppmo-robust")


def test_the_papers_recipe_has_its_constants() -> None:
    """Section 5.1 of the PPMO paper."""
    outer = recipe("cartpole", "ppmo-paper").outer
    constants = {"learners": 1, "environments": 10, "horizon": 200, "epochs": 4, "minibatch_size": 512}
    constants |= {"rate": 2.5e-4, "critic_rate": 2.5e-4, "discount": 0.99, "gae_lambda": 0.95, "clip": 0.2}
    constants |= {"entropy_bonus": 0.01, "max_grad_norm": 0.5, "adam_eps": 1e-5}
    assert {name: getattr(outer, name) for name in constants} == constants
    for task in ("cartpole", "breakout"):
        config = recipe(task, "ppmo-paper")
        assert (config.initial_rate, config.initial_examples) == (0.02, "normal")


def test_the_published_recipe_differs_from_the_papers_by_its_errors_alone() -> None:
    paper, published = recipe("cartpole", "ppmo-paper"), recipe("cartpole", "ppmo-published")
    assert not paper.outer.published_errors
    assert published == dataclasses.replace(paper, outer=dataclasses.replace(paper.outer, published_errors=True))


@pytest.mark.parametrize("name", FOR_EPISODES)
def test_fields_can_be_replaced(name: str) -> None:
    outer = PPMO(learners=6)
    changed = recipe("cartpole", name, examples=7, seed=3, outer=outer)
    assert (changed.examples, changed.seed, changed.outer) == (7, 3, outer)
    assert dataclasses.replace(recipe("cartpole", name), examples=7, seed=3, outer=outer) == changed
    assert ppo_baseline("cartpole", seed=3) == dataclasses.replace(ppo_baseline("cartpole"), seed=3)


@pytest.mark.parametrize(
    ("start", "name", "kind", "rate"),
    [
        ("hades", "GradientStep", GradientStep, 1.0),
        ("ppmo-paper", "AdamSteps", AdamSteps, 0.01),
        ("ppmo", "ImplicitStep", ImplicitStep, 100.0),
    ],
)
@pytest.mark.parametrize("task", ["cartpole", "pendulum"])
def test_another_cloning_brings_its_own_defaults(task: str, start: str, name: str, kind: type, rate: float) -> None:
    config = recipe(task, start, cloning=name)
    assert type(config.cloning) is kind
    assert config.initial_rate == rate != recipe(task, start).initial_rate
    assert_valid(config, task)
    assert recipe(task, start, cloning=name, initial_rate=0.5).initial_rate == 0.5


@pytest.mark.parametrize(("start", "name"), [("hades", "AdamSteps"), ("ppmo-paper", "GradientStep")])
@pytest.mark.parametrize("task", ["cartpole", "pendulum"])
def test_the_recipes_own_kind_of_cloning_changes_nothing(task: str, start: str, name: str) -> None:
    assert recipe(task, start, cloning=name) == recipe(task, start)


@pytest.mark.parametrize(
    ("arguments", "options", "hint"),
    [
        (
            ("cartpole", "nonsense"),
            {},
            ", ".join(RECIPES),
        ),
        (("cartpol",), {}, "did you mean cartpole"),
        (("cartpole",), {"cloning": "nonsense"}, "GradientStep, AdamSteps"),
        (("cartpole",), {"examples": 0}, "examples"),
        (("cartpole",), {"seed": -1}, "seed"),
    ],
)
def test_nonsense_is_refused(arguments: tuple[str, ...], options: dict[str, Any], hint: str) -> None:
    with pytest.raises(FloppyError, match=hint):
        recipe(*arguments, **options)


def test_another_strategy_brings_its_own_rate() -> None:
    ours, snes = (recipe("breakout", "hades", strategy=strategy).outer for strategy in ("Open_ES", "SNES"))
    assert isinstance(snes, HaDES)
    assert ours == recipe("breakout", "hades").outer
    assert (snes.strategy, snes.rate) == ("SNES", None)
    assert dataclasses.replace(snes, strategy=ours.strategy, rate=ours.rate) == ours
    with pytest.raises(FloppyError, match=r"^Strategy SNES was asked for with ppmo, which has none: choose recipe"):
        recipe("breakout", strategy="SNES")


def test_the_command_line_gives_another_strategy_its_own_rate_too() -> None:
    words = ["cartpole", "--outer", "hades", "--strategy", "SNES"]
    command = Distill.parse(words)
    assert isinstance(command, Distill)
    assert command.config == recipe("cartpole", "hades", strategy="SNES")
    given = Distill.parse([*words, "--rate", "0.5"])
    assert isinstance(given, Distill)
    assert given.config.outer.rate == 0.5


def test_fields_of_an_outer_loop_and_its_name_are_no_fields_of_the_configuration() -> None:
    with pytest.raises(FloppyError, match=r"^A configuration has no population: give fields of DistillConfig; "):
        recipe("cartpole", "hades", population=8)
    with pytest.raises(FloppyError, match=r"^outer = 'hades' was asked for: give a PPMO, a HaDES or a Supervised"):
        recipe("cartpole", outer="hades")


def test_the_baseline_refuses_an_unknown_task() -> None:
    with pytest.raises(FloppyError, match="did you mean cartpole"):
        ppo_baseline("cartpol")
