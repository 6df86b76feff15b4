"""HaDES: hallucinating datasets with evolution strategies (Lupu et al., ICLR 2024, section 4)."""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from floppy.cloning import Distilled, clone
from floppy.cloning.base import map_clones
from floppy.errors import MAX_COUNT, FloppyError
from floppy.fields import bounded, check_fields, one_of
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.outer.base import Info, OuterLoopDefaults, Problem, register_outer_loop
from floppy.outer.hades.strategies import SHAPINGS, Decay, Strategy, check_strategy, default_rate, make_strategy
from floppy.outer.start import SEEN_BY_FILES
from floppy.play.arena import Arena
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import Moments, RunningStatistics, absorb_moments, init_statistics


class HaDESState(NamedTuple):
    """Everything that the next generation depends on."""

    distilled: Distilled
    """The mean of the search distribution, and what is not searched."""
    strategy: Any
    statistics: RunningStatistics


class _Outcome(NamedTuple):
    """What became of candidates; leaves `[candidates, ...]`."""

    fitness: jax.Array
    steps: jax.Array
    moments: Moments | None


@register_outer_loop
@dataclasses.dataclass(frozen=True)
class HaDES(OuterLoopDefaults):
    """Outer loop by evolution: datasets are sampled, fresh learners cloned from each, and their returns compared.

    The fitness of a candidate is the mean undiscounted return of its clones, one episode per environment; an episode
    that is cut by the horizon counts with the return it has by then. With an encoder that holds every layer nothing is
    left to clone, and this is direct neuroevolution. With learners of one fixed draw (`init_seed`) it is HaDES-F,
    else HaDES-R.
    """

    name: ClassVar[str] = "hades"
    strategy: str = "Open_ES"
    """A distribution-based strategy of evosax: Open_ES, SNES, CMA_ES, ..."""
    population: int = bounded(64, least=2, most=MAX_COUNT)
    """Candidates per generation."""
    initialisations: int = bounded(2, least=1, most=MAX_COUNT)
    """Fresh learners per generation, in equal shares over the learner distributions; all candidates share them."""
    environments: int = bounded(4, least=1, most=MAX_COUNT)
    """Environments per learner, with one episode each."""
    horizon: int = bounded(0, least=0, most=MAX_COUNT)
    """Steps after which an episode is cut; 0 for the task's own limit."""
    sigma: float = bounded(0.1, above=0)
    """Standard deviation of the search at the start (Open_ES, SNES; other strategies read it in their own way)."""
    sigma_decay: float = bounded(1.0, above=0)
    """Factor by which the deviation changes over the run (SNES and some others adapt it by themselves)."""
    rate: float | None = bounded(None, above=0)
    """Step of the mean: Adam's rate for Open_ES and its kin (by default 0.05), a factor for SNES (by default 1)."""
    rate_decay: float = bounded(1.0, above=0)
    """Factor by which the rate changes over the run."""
    shaping: str = one_of("centred-rank", SHAPINGS)
    """How Open_ES weighs fitness: centred-rank or z-score; every other strategy has a rule of its own."""
    antithetic: bool = True
    """Whether the noise of Open_ES and SNES comes in pairs of opposite sign."""
    common_random_numbers: bool = True
    """Whether all candidates of a generation meet the same episodes and the same noise in their actions."""
    smoothness: float = bounded(0.0, least=0)
    """Standard deviation (pixels) of the Gaussian kernel that correlates the noise on images; 0: independent noise.
    A game's pixels mean about the same as their neighbours, and smooth noise then finds its way in fewer dimensions."""
    target_noise: float = bounded(1.0, above=0)
    """Noise on learned targets, and their steps, in units of those of observations. With equal noise the labels'
    part in the differences of fitness drowns that of single pixels. Of no effect where targets are not learned."""
    normalise_observations: bool = False
    """Whether observations are scaled by running statistics, which the file then carries."""
    chunk: int = bounded(0, least=0, most=MAX_COUNT)
    """Candidates that a device evaluates at a time; 0 chooses by memory. It changes results by rounding at most."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_strategy(self.strategy, self.population, antithetic=self.antithetic)

    def check(self, problem: Problem) -> None:
        """Checks that learners can be shared, and that smoothness meets images."""
        self._share(problem)
        problem.check_normaliser(normalises=self.normalise_observations)
        self._check_smoothness(problem)

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> HaDESState:
        """The state before the first generation."""
        known = problem.first_statistics(arena, named_key(key, "warm-up")) if self.normalise_observations else None
        return self.start(problem, problem.init_distilled(named_key(key, "distilled"), known, arena), known)

    def start(self, problem: Problem, distilled: Distilled, statistics: RunningStatistics | None = None) -> HaDESState:
        """The state of a search that starts from a dataset.

        Statistics that do not know how much they have seen, as a file's, count as of a million observations: the
        dataset keeps its meaning.
        """
        mean, _ = ravel_pytree(problem.parameters(distilled))
        if statistics is None:
            statistics = init_statistics(problem.task.observation_shape)
        else:
            statistics = statistics._replace(seen=jnp.where(statistics.seen > 0, statistics.seen, SEEN_BY_FILES))
        return HaDESState(distilled, self._strategy(problem, distilled).init(mean), statistics)

    def step(
        self, problem: Problem, state: HaDESState, key: jax.Array, arena: Arena[Any] = ON_DEVICE
    ) -> tuple[HaDESState, Info]:
        """One generation: sample, clone and play, move the search distribution."""
        candidates, fresh = arena.compiled(self._sample)(problem, state, key)
        episodes = self.initialisations * self.environments
        weights = (fresh, state.distilled.encoder)  # of which every candidate has its own
        chunk = self.chunk or arena.chunk(problem.task, self.population, weights, episodes)
        outcome = partial(self._outcome, problem, arena)
        result = arena.map(outcome, self.population, chunk, candidates, state, fresh, named_key(key, "play"))
        return arena.compiled(self._move)(problem, state, candidates, result, key)

    def _sample(self, problem: Problem, state: HaDESState, key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
        """The strategy's candidates, and the fresh learners that they share, per member of the mixture."""
        candidates = self._strategy(problem, state.distilled).ask(state.strategy, named_key(key, "ask"))
        fresh = tuple(
            jax.vmap(partial(problem.draw, network))(
                jax.random.split(named_key(key, f"learners {group}"), self._draws(problem, group))
            )
            for group, network in enumerate(problem.networks)
        )
        return candidates, fresh

    def _move(
        self, problem: Problem, state: HaDESState, candidates: Any, result: _Outcome, key: jax.Array
    ) -> tuple[HaDESState, Info]:
        """Everything that follows the play."""
        strategy = self._strategy(problem, state.distilled)
        failed = ~jnp.isfinite(result.fitness)
        result = _failures_as_worst(result, failed)
        searched = strategy.tell(state.strategy, candidates, result.fitness, named_key(key, "tell"))
        after = state._replace(
            distilled=self._dataset(problem, state, strategy.mean(searched)),
            strategy=searched,
        )
        if result.moments is not None and not problem.freezes_statistics:
            sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), result.moments)
            after = after._replace(statistics=absorb_moments(state.statistics, sums, state.statistics.mean))
        info = self._info(result, strategy.sigma(searched)) | problem.rates(after.distilled)
        return after, info | {"failed": jnp.sum(failed)}

    def _dataset(self, problem: Problem, state: HaDESState, vector: jax.Array) -> Distilled:
        """The dataset at a place `[d]` of the search."""
        centre, unravel = ravel_pytree(problem.parameters(state.distilled))
        if not self.smoothness and self.target_noise == 1.0:
            return problem.improved(unravel(vector), state.distilled)
        # The strategy searches in coordinates whose noise is white: only differences from its mean are carried over.
        moved = unravel(vector - self._strategy(problem, state.distilled).mean(state.strategy))
        if self.smoothness:
            moved["observations"] = smooth(moved["observations"], self.smoothness)
        if "targets" in moved:
            moved["targets"] *= self.target_noise
        return problem.improved(jax.tree.map(jnp.add, unravel(centre), moved), state.distilled)

    def distilled(self, state: HaDESState) -> Distilled:
        """The mean of the search distribution."""
        return state.distilled

    def statistics(self, state: HaDESState) -> RunningStatistics | None:
        """The running statistics, if observations are normalised."""
        return state.statistics if self.normalise_observations else None

    def _info(self, result: _Outcome, sigma: jax.Array) -> Info:
        episodes = self.population * self.initialisations * self.environments
        steps = jnp.sum(result.steps)
        return {
            "fitness": jnp.mean(result.fitness),
            "best_fitness": jnp.max(result.fitness),
            "fitness_sd": jnp.std(result.fitness),
            "env_steps": steps,
            "episode_length": steps / episodes,
            "sigma": sigma,
        }

    def _outcome(
        self,
        problem: Problem,
        arena: Arena[Any],
        indices: jax.Array,
        candidates: Any,
        state: HaDESState,
        fresh: tuple[Any, ...],
        key: jax.Array,
    ) -> _Outcome:
        """Clones and plays candidates of `indices [c]`."""
        count, outcomes = indices.shape[0], []
        for group, network in enumerate(problem.networks):
            weights, streams = arena.compiled(self._clones, static=2)(
                problem, group, indices, candidates, state, fresh[group], key
            )
            played = arena.fitness(
                problem.task,
                network,
                weights,
                streams,
                episodes=self.environments * self._share(problem) // self._draws(problem, group),
                statistics=self.statistics(state),
                max_episode_steps=self.horizon or None,
                share_features=problem.moves_readout_alone and self.common_random_numbers,
            )
            per_candidate = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), played)
            outcomes.append(
                _Outcome(
                    jnp.mean(per_candidate.returns, axis=(1, 2)),
                    jnp.sum(per_candidate.steps, axis=(1, 2)),
                    jax.tree.map(lambda x: jnp.sum(x, axis=1), per_candidate.moments),
                )
            )
        total = jax.tree.map(lambda *groups: sum(groups), *outcomes)
        return total._replace(fitness=total.fitness / len(outcomes))

    def _clones(
        self,
        problem: Problem,
        group: int,
        indices: jax.Array,
        candidates: Any,
        state: HaDESState,
        fresh: Any,
        key: jax.Array,
    ) -> tuple[Any, jax.Array]:
        """Learners `[c·n, ...]` of a member of the mixture, and keys for their play: `[n]` for all, or `[c·n]`."""
        network, member = problem.networks[group], self._strategy(problem, state.distilled).member
        datasets = jax.vmap(lambda index: self._dataset(problem, state, member(candidates, index)))(indices)
        weights = _clone_each(problem, network, datasets, fresh)
        keys = key[None] if self.common_random_numbers else jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        draws = self._draws(problem, group)
        streams = jax.vmap(lambda k: jax.random.split(named_key(k, f"group {group}"), draws))(keys)
        return weights, streams.ravel()

    def _check_smoothness(self, problem: Problem) -> None:
        shape = problem.task.observation_shape
        if self.smoothness and len(shape) != 3:
            raise FloppyError(
                f"smoothness must be 0 for {problem.task.task_id}, whose observations of shape {shape} are no images, "
                f"got {self.smoothness:g}."
            )

    def _share(self, problem: Problem) -> int:
        return problem.share(self.initialisations, "initialisations")

    def _draws(self, problem: Problem, group: int) -> int:
        """Different learners of a distribution; one that is a single draw is cloned once, and plays all episodes."""
        return 1 if problem.learners[group].is_single_draw else self._share(problem)

    def _strategy(self, problem: Problem, distilled: Distilled) -> Strategy:
        size = ravel_pytree(problem.parameters(distilled))[0].size
        rate = default_rate(self.strategy) if self.rate is None else self.rate
        schedules = (
            Decay(rate, self.rate_decay, problem.outer_steps),
            Decay(self.sigma, self.sigma_decay, problem.outer_steps),
        )
        return make_strategy(self.strategy, self.population, size, self.shaping, self.antithetic, *schedules)


def smooth(noise: jax.Array, length: float) -> jax.Array:
    """White noise `[k, rows, columns, channels]` correlated between neighbouring pixels, of the same variance.

    Each pixel becomes a sum over its image, weighted by a Gaussian of standard deviation `length` pixels; the weights
    have a square sum of 1.
    """
    _, rows, columns, _ = noise.shape
    return jnp.einsum("ri,cj,kijf->krcf", _gaussian_weights(rows, length), _gaussian_weights(columns, length), noise)


def _gaussian_weights(size: int, length: float) -> jax.Array:
    """`[size, size]`, rows of norm 1."""
    place = jnp.arange(size)
    weights = jnp.exp(-0.5 * ((place[:, None] - place[None, :]) / length) ** 2)
    return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)


def _failures_as_worst(result: _Outcome, failed: jax.Array) -> _Outcome:
    """A candidate whose clones or physics diverged counts as the worst of the others; its observations do not count.

    If all did, no fitness is left, and the run ends.
    """
    worst = jnp.min(jnp.where(failed, jnp.inf, result.fitness))
    fitness = jnp.where(failed, jnp.where(jnp.all(failed), jnp.nan, worst), result.fitness)
    if result.moments is None:
        return result._replace(fitness=fitness)
    first, second = (sums.reshape(failed.shape[0], -1) for sums in result.moments[1:])
    lost = failed | ~jnp.all(jnp.isfinite(first) & jnp.isfinite(second), axis=1)
    kept = jax.tree.map(lambda x: jnp.where(lost.reshape(-1, *(1,) * (x.ndim - 1)), 0.0, x), result.moments)
    return result._replace(fitness=fitness, moments=kept)


def _clone_each(problem: Problem, network: Network[Any], datasets: Distilled, fresh: Any) -> Any:
    """Every fresh learner `[n]` cloned from every dataset `[c]`: leaves `[c·n, ...]`."""
    candidates, learners = (jax.tree.leaves(tree)[0].shape[0] for tree in (datasets, fresh))

    def one(pair: jax.Array) -> Any:
        dataset, weights = (
            jax.tree.map(lambda leaf, at=at: leaf[at], tree)
            for tree, at in ((datasets, pair // learners), (fresh, pair % learners))
        )
        return clone(problem.cloning, network, dataset, weights)

    return map_clones(problem.cloning, one, jnp.arange(candidates * learners))


__all__ = ["HaDES", "HaDESState"]
