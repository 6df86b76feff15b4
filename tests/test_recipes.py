"""Recipes: a table of valid configurations for every kind of task."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
import pytest

from floppy.cloning import AdamSteps, FeatureSteps, GradientStep, ImplicitStep
from floppy.cloning.base import CLONINGS
from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distributions
from floppy.learner.mlp import LearnerDistribution
from floppy.learner.user_networks import NETWORKS, network, register_network
from floppy.outer import OUTER_LOOPS, PPMO, HaDES
from floppy.recipes import RECIPES, STAGED, for_one_learner, neuroevolution_baseline, ppo_baseline, recipe
from floppy.run.config import DistillConfig
from floppy.spaces import Continuous
from floppy.tasks import make_task
from floppy.tasks.base import FEW_NUMBERS, Profile, profile_of
from floppy.tasks.registry import FAMILIES

TASKS = {
    "vector": "gymnax/Acrobot-v1",
    "cartpole": "ndcartpole/3",
    "continuous": "pendulum",
    "grid": "breakout",
    "small-images": "digits",
    "atari": "ale/pong",
}
"""One of each profile; large images need files of their own, see tests/test_images.py."""
KINDS = {"hades-brax": "continuous", "hades-minatar": "discrete"}
"""Recipes for one kind of actions only."""


def assert_valid(config: DistillConfig) -> None:
    problem = config.problem()
    assert problem.task == make_task(config.task)
    assert problem.examples == config.examples
    assert problem.outer_steps == config.outer_steps
    assert problem.encoder_layers == config.encoder_layers
    entry = json.loads(json.dumps(config.as_dict(), allow_nan=False))
    assert entry == config.as_dict()
    assert entry["task"] == problem.task.task_id
    assert entry["outer"].pop("kind") == type(config.outer).__name__
    assert entry["cloning"].pop("kind") == type(config.cloning).__name__
    # All that the configuration holds, and so enough to build it again.
    parts = {"outer": type(config.outer)(**entry["outer"]), "cloning": type(config.cloning)(**entry["cloning"])}
    assert DistillConfig(**(entry | parts)) == config


def assert_steps(config: DistillConfig) -> None:
    """Traces a step of the outer loop, which leaves its state as it was built."""
    problem, key = config.problem(), jax.random.key(0)
    state = jax.eval_shape(lambda: config.outer.init(problem, key))
    after, info = jax.eval_shape(lambda state: config.outer.step(problem, state, key), state)
    assert jax.tree.all(jax.tree.map(lambda old, new: (old.shape, old.dtype) == (new.shape, new.dtype), state, after))
    assert info["env_steps"].shape == ()
    if isinstance(config.outer, PPMO):
        played = sum(group.returns.size for group in state.environments)
        assert played == config.outer.learners * config.outer.environments


def assert_refused_or_valid(name: str, profile: str) -> None:
    task = make_task(TASKS[profile])
    kind = "continuous" if isinstance(task.actions, Continuous) else "discrete"
    if profile not in RECIPES[name].rows:
        with pytest.raises(FloppyError, match=f"^Recipe {name} needs .*, and {task.task_id} has none: leave --recipe"):
            recipe(TASKS[profile], name)
        return
    config = recipe(TASKS[profile], name)
    assert config.outer.name == ("ppmo" if name in STAGED else name.partition("-")[0])
    assert type(config.outer) is OUTER_LOOPS[config.outer.name]
    if isinstance(config.outer, PPMO) and profile == "small-images":
        with pytest.raises(FloppyError, match=f"needs episodes, {task.task_id} has none"):
            config.problem()
        return
    if KINDS.get(name, kind) != kind:
        with pytest.raises(FloppyError, match=f"^loss must be one of .* for {kind} actions, got {config.cloning.loss}"):
            config.problem()
        return
    assert_valid(config)


@pytest.mark.parametrize("profile", TASKS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_for_every_profile_or_says_what_it_needs(name: str, profile: str) -> None:
    for module in {"atari": ["ale_py"], "small-images": ["sklearn"]}.get(profile, []):
        pytest.importorskip(module)
    assert profile_of(make_task(TASKS[profile])).name == profile
    assert_refused_or_valid(name, profile)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [
        pytest.param("ppmo-robust", "cartpole", marks=pytest.mark.thorough),
        ("ppmo-published", "pendulum"),
        pytest.param("ppmo", "breakout", marks=pytest.mark.thorough),
        ("hades", "cartpole"),
        ("hades-brax", "pendulum"),
        ("hades-minatar", "breakout"),
        ("taught", "breakout"),
    ],
)
def test_a_recipes_outer_loop_steps(name: str, task: str) -> None:
    assert_steps(recipe(task, name))


def test_every_recipe_knows_the_same_profiles() -> None:
    everywhere = set(RECIPES["ppmo"].rows)
    assert everywhere == {*TASKS, "large-images"}
    for name, (rows, needs, _) in RECIPES.items():
        assert set(rows) == everywhere or (set(rows) < everywhere and needs), name


def test_rows_hold_fields_of_a_configuration() -> None:
    fields = {field.name for field in dataclasses.fields(DistillConfig)} - {"task", "seed"}
    for made in RECIPES.values():
        for row in made.rows.values():
            assert {"examples", "outer"} <= set(row) <= fields


def test_a_task_with_a_profile_of_its_own_gets_what_its_actions_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("pendulum")

    class Own(type(task)):  # type: ignore[misc]
        profile = Profile("bicycle")
        task_id = "own/bicycle"

    monkeypatch.setitem(FAMILIES, "own", lambda rest: Own(task.name))
    assert recipe("own/bicycle") == dataclasses.replace(recipe("pendulum"), task="own/bicycle")


@pytest.mark.parametrize("task", ["pendulum", "mountaincar", "gymnasium/MountainCar-v0"])
def test_ppmo_moves_hidden_layers_where_few_numbers_are_observed(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = make_task(task)
    config = recipe(task)
    assert (type(config.outer), type(config.cloning)) == (PPMO, FeatureSteps)
    assert type(recipe(task, "ppmo-paper").cloning) is type(ppo_baseline(task).cloning) is GradientStep

    class Larger(type(known)):  # type: ignore[misc]
        observation_shape = (FEW_NUMBERS + 1,)
        task_id = "own/larger"

    monkeypatch.setitem(FAMILIES, "own", lambda rest: Larger(known.name))
    assert type(recipe("own/larger").cloning) is GradientStep
    assert recipe("own/larger", "hades").outer_steps > recipe(task, "hades").outer_steps


@pytest.mark.thorough(all_but=["cartpole-ppo_baseline", "breakout-neuroevolution_baseline"])
@pytest.mark.parametrize("baseline", [ppo_baseline, neuroevolution_baseline])
@pytest.mark.parametrize("task", ["cartpole", "pendulum", "breakout"])
def test_baselines_have_no_examples_but_every_layer(task: str, baseline: Any) -> None:
    config = baseline(task)
    assert_valid(config)
    assert_steps(config)
    assert config.examples == 0
    assert config.encoder_layers == config.problem().learners[0].layers
    if baseline is ppo_baseline:
        assert config.outer.learners == 1
        assert config.outer.environments == recipe(task).outer.learners * recipe(task).outer.environments
    else:
        assert (config.outer.population, config.outer.initialisations, config.targets) == (256, 1, "learned")


def test_the_default_is_ppmo() -> None:
    assert recipe("ndcartpole/2") == recipe("ndcartpole/2", "ppmo")
    assert recipe("digits") == recipe("digits", "supervised")


@pytest.mark.thorough(all_but=["1-pendulum", "2-breakout"])
@pytest.mark.slow
@pytest.mark.parametrize("task", ["breakout", "pendulum"])
@pytest.mark.parametrize("layers", [1, 2])
def test_encoders_leave_a_valid_recipe(task: str, layers: int) -> None:
    config = recipe(task, encoder_layers=layers, distribution="width=8:depth=1", examples=0 if layers == 2 else None)
    assert_valid(config)
    assert_steps(config)
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
    with pytest.raises(FloppyError, match=r"^Recipe ppmo-robust needs flat observations.*Breakout-MinAtar has none"):
        recipe("breakout", "ppmo-robust")


def test_the_recipe_for_any_network_shares_learners_equally() -> None:
    for task in ("cartpole", "pendulum", "breakout"):
        config = recipe(task, "ppmo-any")
        learners = config.problem().learners
        assert len(learners) == 8
        assert len({each.activation for each in learners}) == 4
        assert config.outer.learners % 8 == config.selection_learners % 8 == 0
    assert parse_distributions("any") == learners
    assert parse_distributions("lambda,any") == (*parse_distributions("lambda"), *learners)


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


@pytest.mark.parametrize("name", ["ppmo", "hades"])
def test_fields_can_be_replaced(name: str) -> None:
    outer = PPMO(learners=6)
    changed = recipe("cartpole", name, examples=7, seed=3, outer=outer)
    assert (changed.examples, changed.seed, changed.outer) == (7, 3, outer)
    assert dataclasses.replace(recipe("cartpole", name), examples=7, seed=3, outer=outer) == changed
    assert ppo_baseline("cartpole", seed=3) == dataclasses.replace(ppo_baseline("cartpole"), seed=3)


@pytest.mark.thorough(
    all_but=[
        "cartpole-hades-GradientStep-GradientStep-1.0",
        "cartpole-ppmo-paper-AdamSteps-AdamSteps-0.01",
        "cartpole-ppmo-ImplicitStep-ImplicitStep-100.0",
        "pendulum-ppmo-paper-FeatureSteps-FeatureSteps-rate3",
    ]
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "name", "kind", "rate"),
    [
        ("hades", "GradientStep", GradientStep, 1.0),
        ("ppmo-paper", "AdamSteps", AdamSteps, 0.01),
        ("ppmo", "ImplicitStep", ImplicitStep, 100.0),
        ("ppmo-paper", "FeatureSteps", FeatureSteps, (1000.0, 1000.0, 100.0)),
    ],
)
@pytest.mark.parametrize("task", ["cartpole", "pendulum"])
def test_another_cloning_brings_its_own_defaults(task: str, start: str, name: str, kind: type, rate: Any) -> None:
    config = recipe(task, start, cloning=name)
    assert type(config.cloning) is kind
    assert config.initial_rate == rate != recipe(task, start).initial_rate
    assert_valid(config)
    assert_steps(config)
    assert recipe(task, start, cloning=name, initial_rate=0.5).initial_rate == 0.5


def test_a_kind_that_names_its_rate_alone_is_still_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Fast(GradientStep):
        def defaults(self) -> dict[str, Any]:
            return {"initial_rate": 3.0}

    monkeypatch.setattr(CLONINGS, "_members", dict(CLONINGS) | {"Fast": Fast})
    config = recipe("cartpole", cloning="Fast")
    assert (config.cloning, config.initial_rate) == (Fast(), 3.0)


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
        (("cartpole",), {"examples": "2"}, "examples must be a whole number, got '2'"),
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
    with pytest.raises(FloppyError, match=r"^strategy must be left out for ppmo, which has none, got 'SNES': choose"):
        recipe("breakout", strategy="SNES")


def test_fields_of_an_outer_loop_and_its_name_are_no_fields_of_the_configuration() -> None:
    with pytest.raises(FloppyError, match=r"^A configuration has no population: give fields of DistillConfig; "):
        recipe("cartpole", "hades", population=8)
    with pytest.raises(FloppyError, match=r"^outer must be one of HaDES, Imitation, PPMO, Supervised.* got 'hades'"):
        recipe("cartpole", outer="hades")


def test_the_baseline_refuses_an_unknown_task() -> None:
    with pytest.raises(FloppyError, match="did you mean cartpole"):
        ppo_baseline("cartpol")
    for baseline in (ppo_baseline, neuroevolution_baseline):
        with pytest.raises(FloppyError, match="A configuration has no nonsense"):
            baseline("cartpole", nonsense=1)


@pytest.mark.parametrize("baseline", [ppo_baseline, neuroevolution_baseline])
def test_a_baselines_encoder_holds_every_layer_of_its_learners(baseline: Callable[..., DistillConfig]) -> None:
    config = baseline("cartpole", distribution=LearnerDistribution(depth=(4, 4)))
    assert (config.encoder_layers, config.examples) == (5, 0)
    config.problem()


def test_distributions_are_taken_as_text_or_as_objects() -> None:
    wide = LearnerDistribution(width=(32, 32))
    assert recipe("cartpole", distribution=wide).problem().learners == (wide,)
    both = recipe("cartpole", distribution=[wide, "lambda"]).problem().learners
    assert both == (wide, LearnerDistribution())
    assert recipe("cartpole", distribution="width=32").problem().learners == (wide,)


class Linear:
    """A network of a user's own."""

    def init(self, key: jax.Array, observations: jax.Array) -> Any:
        return jax.random.normal(key, (observations.shape[-1], 2))

    def apply(self, params: Any, observations: jax.Array) -> Any:
        return observations @ params


def test_a_network_of_ones_own_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NETWORKS, "_members", dict(NETWORKS))
    with pytest.raises(FloppyError, match="register it first"):
        recipe("cartpole", distribution=network(Linear()))
    learners = register_network("my-linear", Linear())
    config = recipe("cartpole", distribution=learners)
    assert config.distribution == "my-linear"
    assert config.problem().learners == (learners,)
    for name in ("ppmo", "ppmo-robust"):
        alone = recipe("gymnax/CartPole-v1", name, distribution=learners)
        assert type(alone.cloning) is GradientStep, "it has no features"
        assert_valid(alone)
        assert type(recipe("gymnax/CartPole-v1", name, distribution="width=8").cloning) is FeatureSteps


def test_one_learner_plays_the_episodes_of_all() -> None:
    before = recipe("cartpole", "hades", seed=5)
    config = for_one_learner(before)
    assert config.problem().learners[0].is_single_draw
    assert "init_seed=5" in config.distribution
    assert config.outer == dataclasses.replace(before.outer, initialisations=1, environments=8)
