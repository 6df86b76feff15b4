"""Cloning against NumPy: losses by hand, gradients by manual backpropagation, Adam written out, finite differences."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from floppy.cloning import LOSSES, AdamSteps, Cloning, Distilled, FeatureSteps, GradientStep, ImplicitStep, base, clone
from floppy.cloning.base import map_clones, rates_shape
from floppy.cloning.losses import check_loss, cross_entropy_loss, gaussian_nll_loss, huber_loss, mse_loss
from floppy.errors import FloppyError
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.tasks import Continuous, Discrete

pytestmark = pytest.mark.usefixtures("no_nans")

DISCRETE = Discrete(2)
CONTINUOUS = Continuous(2, (-1.0, -1.0), (1.0, 1.0))
NO_STD = jnp.zeros(0)
run_clone = jax.jit(clone, static_argnums=(0, 1))
# Every loss with every kind of actions that it suits.
CASES = [
    pytest.param("mse", DISCRETE, id="mse-discrete"),
    pytest.param("mse", CONTINUOUS, id="mse-continuous"),
    pytest.param("cross-entropy", DISCRETE, id="cross-entropy"),
    pytest.param("gaussian-nll", CONTINUOUS, id="gaussian-nll"),
]


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision, in which finite differences and NumPy twins agree to many digits."""
    with jax.enable_x64(True):
        yield


class Setting(NamedTuple):
    network: LayeredNetwork
    distilled: Distilled
    fresh: Weights


def make_setting(actions: Discrete | Continuous, depth: int = 1, encoder_layers: int = 0, seed: int = 0) -> Setting:
    """A tiny tanh network of 3 inputs, 4 units and 2 outputs, and 5 examples; all weights are off zero."""
    network = LayeredNetwork(LearnerDistribution((4, 4), (depth, depth)), (3,), actions)
    random = np.random.default_rng(seed)
    continuous = isinstance(actions, Continuous)
    layers = tuple(
        {
            "kernel": jnp.asarray(0.6 * random.normal(size=shape)),
            "bias": jnp.asarray(0.3 * random.normal(size=shape[1])),
        }
        for shape in network.kernel_shapes
    )
    log_std = jnp.asarray(0.3 * random.normal(size=2 if continuous else 0))
    fresh = Weights(layers, (jnp.zeros(()),) * len(layers), log_std)
    distilled = Distilled(
        jnp.asarray(random.normal(size=(5, 3))),
        jnp.asarray(random.normal(size=(5, 2)) if continuous else random.dirichlet(np.ones(2), 5)),
        jnp.asarray(random.normal(size=2 if continuous else 0)),
        jnp.asarray(0.3),
        jax.tree.map(lambda w: w + 0.1, fresh.layers[:encoder_layers]),
    )
    return Setting(network, distilled, fresh)


def numpy_gradients(loss: str, parameters: dict[str, np.ndarray], distilled: Distilled) -> dict[str, np.ndarray]:
    """Backpropagation by hand. Parameters are named `kernel 0`, `bias 0`, ..., `log_std`."""
    count = sum(name.startswith("kernel") for name in parameters)
    inputs = [np.asarray(distilled.observations, np.float64)]
    for i in range(count):
        output = inputs[-1] @ parameters[f"kernel {i}"] + parameters[f"bias {i}"]
        inputs.append(np.tanh(output) if i < count - 1 else output)
    output, targets, log_std = inputs[-1], np.asarray(distilled.targets, np.float64), parameters["log_std"]
    gradients = {"log_std": np.zeros_like(log_std)}
    if loss == "mse":
        delta = 2 * (output - targets) / output.size
        if log_std.size:
            gradients["log_std"] = 2 * (log_std - np.asarray(distilled.log_std)) / log_std.size
    elif loss == "cross-entropy":
        delta = (scipy.special.softmax(output, axis=1) * targets.sum(1, keepdims=True) - targets) / len(output)
    else:
        delta = (output - targets) / np.exp(2 * log_std) / len(output)
        gradients["log_std"] = np.mean(1 - ((targets - output) / np.exp(log_std)) ** 2, axis=0)
    for i in reversed(range(count)):
        gradients[f"kernel {i}"] = inputs[i].T @ delta
        gradients[f"bias {i}"] = delta.sum(0)
        if i:
            delta = (delta @ parameters[f"kernel {i}"].T) * (1 - inputs[i] ** 2)
    return gradients


def as_parameters(weights: Weights) -> dict[str, np.ndarray]:
    named = {f"{part} {i}": layer[part] for i, layer in enumerate(weights.layers) for part in ("kernel", "bias")}
    return {name: np.asarray(value, np.float64) for name, value in (named | {"log_std": weights.log_std}).items()}


def numpy_start(setting: Setting) -> tuple[dict[str, np.ndarray], list[str]]:
    """The parameters before the first step, the encoder's among them, and the names of those that are learnt."""
    encoder = setting.distilled.encoder
    layers = encoder + setting.fresh.layers[len(encoder) :]
    parameters = as_parameters(setting.fresh._replace(layers=layers))
    return parameters, [name for name in parameters if name == "log_std" or int(name.split()[1]) >= len(encoder)]


def assert_same_parameters(found: Weights, expected: dict[str, np.ndarray], rtol: float, atol: float):
    found_parameters = as_parameters(found)
    assert found_parameters.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found_parameters[name], value, rtol, atol, err_msg=name)


def test_mse_by_hand():
    output, targets = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), jnp.asarray([[0.0, 2.0], [3.0, 2.0]])
    assert float(mse_loss(output, NO_STD, targets, NO_STD)) == 1.25  # (1 + 0 + 0 + 4) / 4
    log_std, target_log_std = jnp.asarray([0.0, 1.0]), jnp.asarray([1.0, 1.0])
    assert float(mse_loss(output, log_std, targets, target_log_std)) == 1.75  # and (1 + 0) / 2


def test_huber_by_hand():
    output, targets = jnp.asarray([[0.5, 2.0], [3.0, 4.0]]), jnp.asarray([[0.0, 2.0], [3.0, 1.0]])
    assert float(huber_loss(output, NO_STD, targets, NO_STD)) == 1.3125  # (0.5² + 0 + 0 + 2 · 3 - 1) / 4
    log_std, target_log_std = jnp.asarray([0.0, 1.0]), jnp.asarray([2.0, 1.0])
    assert float(huber_loss(output, log_std, targets, target_log_std)) == 2.8125  # and (2 · 2 - 1) / 2


def test_cross_entropy_by_hand():
    output = jnp.asarray([[0.0, math.log(3.0)], [1.0, 1.0]])  # probabilities 1/4, 3/4 and 1/2, 1/2
    targets = jnp.asarray([[0.5, 0.5], [1.0, 0.0]])
    expected = (-0.5 * math.log(1 / 4) - 0.5 * math.log(3 / 4) - math.log(1 / 2)) / 2
    assert float(cross_entropy_loss(output, NO_STD, targets, NO_STD)) == pytest.approx(expected)


def test_gaussian_nll_by_hand():
    output, targets = jnp.zeros((2, 2)), jnp.asarray([[1.0, 2.0], [0.0, 4.0]])
    log_std = jnp.asarray([0.0, math.log(2.0)])
    # Rows: z = (1, 1) and (0, 2); each has two halves of log 2π and one log 2.
    expected = (0.5 + 0.5 + 0.0 + 2.0) / 2 + math.log(2.0) + math.log(2 * math.pi)
    assert float(gaussian_nll_loss(output, log_std, targets, jnp.ones(2))) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_losses_equal_their_slow_twins(seed: int):
    random = np.random.default_rng(seed)
    output, targets = random.normal(size=(2, 6, 3))
    log_std, target_log_std = random.normal(size=(2, 3))
    probabilities = random.dirichlet(np.ones(3), 6)
    squares = sum((output[i, j] - targets[i, j]) ** 2 for i in range(6) for j in range(3)) / 18
    std_squares = sum((log_std[j] - target_log_std[j]) ** 2 for j in range(3)) / 3
    crossed = 0.0
    for i in range(6):
        total = sum(math.exp(value) for value in output[i])
        crossed -= sum(probabilities[i, j] * math.log(math.exp(output[i, j]) / total) for j in range(3)) / 6
    errors = np.abs(output - targets)
    bounded = np.where(errors < 1, errors**2, 2 * errors - 1).mean()
    nll = -scipy.stats.norm(output, np.exp(log_std)).logpdf(targets).sum(1).mean()
    output, targets, probabilities = map(jnp.asarray, (output, targets, probabilities))
    log_std, target_log_std = jnp.asarray(log_std), jnp.asarray(target_log_std)
    assert float(mse_loss(output, NO_STD, targets, NO_STD)) == pytest.approx(squares, rel=1e-5)
    assert float(mse_loss(output, log_std, targets, target_log_std)) == pytest.approx(squares + std_squares, rel=1e-5)
    assert float(huber_loss(output, NO_STD, targets, NO_STD)) == pytest.approx(bounded, rel=1e-5)
    assert float(cross_entropy_loss(output, NO_STD, probabilities, NO_STD)) == pytest.approx(crossed, rel=1e-5)
    assert float(gaussian_nll_loss(output, log_std, targets, target_log_std)) == pytest.approx(nll, rel=1e-5)


def test_every_loss_has_its_name():
    expected = {
        "mse": mse_loss,
        "cross-entropy": cross_entropy_loss,
        "gaussian-nll": gaussian_nll_loss,
        "huber": huber_loss,
    }
    assert {name: LOSSES[name].function for name in expected} == expected


@pytest.mark.parametrize(("loss", "actions"), CASES)
def test_one_gradient_step_is_the_learned_rate_times_the_gradient(loss: str, actions: Discrete | Continuous):
    setting = make_setting(actions)
    expected, _ = numpy_start(setting)
    gradients = numpy_gradients(loss, expected, setting.distilled)
    expected = {name: value - 0.3 * gradients[name] for name, value in expected.items()}
    assert_same_parameters(run_clone(GradientStep(loss), *setting), expected, 1e-4, 1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "actions", "encoder_layers"),
    [("mse", DISCRETE, 2), ("mse", CONTINUOUS, 0), ("cross-entropy", DISCRETE, 0), ("gaussian-nll", CONTINUOUS, 2)],
)
def test_gradient_steps_repeat_it_for_the_layers_behind_the_encoder(
    loss: str, actions: Discrete | Continuous, encoder_layers: int
):
    setting = make_setting(actions, depth=2, encoder_layers=encoder_layers)
    expected, learnt = numpy_start(setting)
    for _ in range(3):
        gradients = numpy_gradients(loss, expected, setting.distilled)
        expected |= {name: expected[name] - 0.3 * gradients[name] for name in learnt}
    assert_same_parameters(run_clone(GradientStep(loss, steps=3), *setting), expected, 1e-9, 1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("encoder_layers", [0, 1])
@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_an_implicit_step_takes_the_gradient_where_it_ends(actions: Discrete | Continuous, encoder_layers: int):
    setting = make_setting(actions, depth=2, encoder_layers=encoder_layers)
    setting = setting._replace(distilled=setting.distilled._replace(inner_rate=jnp.asarray(20.0)))
    found = run_clone(ImplicitStep(), *setting)
    gradients = numpy_gradients("mse", as_parameters(found), setting.distilled)
    expected, _ = numpy_start(setting)
    expected |= {name: expected[name] - 20.0 * gradients[name] for name in ("kernel 2", "bias 2", "log_std")}
    assert_same_parameters(found, expected, 1e-4, 1e-5)


@pytest.mark.slow
def test_an_implicit_step_by_hand():
    # One example of observation 2 and target 3, read by one weight from 1 and one bias from 0: k a = 1, so c = 2η = 1.
    # The residual is (3 - 2) / (1 + c (2² + 1)) = 1/6.
    network = LayeredNetwork(LearnerDistribution((1, 1), (0, 0)), (1,), Discrete(1))
    fresh = Weights(({"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},), (jnp.zeros(()),), NO_STD)
    distilled = Distilled(jnp.full((1, 1), 2.0), jnp.full((1, 1), 3.0), NO_STD, jnp.asarray(0.5), ())
    (layer,) = clone(ImplicitStep(), network, distilled, fresh).layers
    assert float(layer["kernel"][0, 0]) == pytest.approx(1 + 2 / 6)
    assert float(layer["bias"][0]) == pytest.approx(1 / 6)


def test_a_large_implicit_step_meets_every_target_that_the_features_allow():
    setting = make_setting(CONTINUOUS, depth=1)
    few = setting.distilled._replace(
        observations=setting.distilled.observations[:3],
        targets=setting.distilled.targets[:3],
        inner_rate=jnp.asarray(1e4),
    )
    found = run_clone(ImplicitStep(), setting.network, few, setting.fresh)
    np.testing.assert_allclose(setting.network.apply(found, few.observations), few.targets, atol=0.02)


def test_an_implicit_step_and_its_gradient_are_exact_where_some_examples_have_large_features():
    # ReLU features grow with the observation: here the largest example's are 10^4 times those of the smallest.
    network = LayeredNetwork(LearnerDistribution((64, 64), (1, 1), activation="relu"), (4,), Discrete(3))
    random = np.random.default_rng(0)
    examples = random.normal(size=(16, 4)) * np.logspace(-1, 3, 16)[:, None]
    targets, others, asked = random.normal(size=(16, 3)), random.normal(size=(5, 4)), random.normal(size=(5, 3))
    fresh, rate = network.init(jax.random.key(0)), 1e6

    @jax.jit
    @jax.value_and_grad
    def weighed(targets: jax.Array) -> jax.Array:
        """What the clone says about other observations."""
        distilled = Distilled(jnp.asarray(examples, jnp.float32), targets, NO_STD, jnp.float32(rate), ())
        return jnp.vdot(network.apply(clone(ImplicitStep(), network, distilled, fresh), others), asked)

    value, slope = weighed(jnp.asarray(targets, jnp.float32))
    hidden, output = ({name: np.asarray(layer[name], np.float64) for name in layer} for layer in fresh.layers)
    phi, seen = (
        np.concatenate([np.maximum(each @ hidden["kernel"] + hidden["bias"], 0), np.ones((len(each), 1))], axis=1)
        for each in (examples, others)
    )
    before, factor = np.concatenate([output["kernel"], output["bias"][None]]), 2 * rate / targets.size
    system = np.eye(len(phi)) + factor * phi @ phi.T
    after = before + factor * phi.T @ np.linalg.solve(system, targets - phi @ before)
    assert float(value) == pytest.approx(np.vdot(seen @ after, asked), rel=0.02)
    exact = factor * np.linalg.solve(system, phi @ seen.T @ asked)
    assert np.linalg.norm(slope - exact) < 0.02 * np.linalg.norm(exact)


def test_an_implicit_step_of_another_loss_is_refused():
    with pytest.raises(FloppyError, match="loss must be mse"):
        ImplicitStep("cross-entropy")


def test_feature_steps_by_hand():
    # One example of observation 2 and target 3, one hidden unit that reads it with weight 1 and bias 0, an output layer
    # of the same. The unit is 2, the output 2, dL/d output = 2 (2 - 3) = -2. So the kernel moves by 1/4 · 2 · 2 = 1 and
    # the bias by 1/2 · 2 = 1, and the unit becomes 2 · 2 + 1 = 5. The output layer then takes the implicit step of rate
    # 1/2, c = 1: the residual is (3 - 5) / (1 + 5² + 1) = -2/27.
    network = LayeredNetwork(LearnerDistribution((1, 1), (1, 1), activation="relu"), (1,), Discrete(1))
    layer = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    fresh = Weights((layer, layer), (jnp.zeros(()),) * 2, NO_STD)
    distilled = Distilled(jnp.full((1, 1), 2.0), jnp.full((1, 1), 3.0), NO_STD, jnp.array([0.25, 0.5, 0.5]), ())
    hidden, output = clone(FeatureSteps(), network, distilled, fresh).layers
    assert (float(hidden["kernel"][0, 0]), float(hidden["bias"][0])) == (2.0, 1.0)
    assert float(output["kernel"][0, 0]) == pytest.approx(1 - 5 * 2 / 27)
    assert float(output["bias"][0]) == pytest.approx(-2 / 27)


def test_unit_steps_by_hand():
    # As above with output weights of 3/4 and a target of 1/2: the unit is 2, the output 3/2, dL/d output = 2, and dL/d
    # unit = 3/2. The kernel's gradient is 3, the bias's 3/2, their norm 3/2 · √5: steps of 2/√5 and 1/√5 at rates of 1.
    network = LayeredNetwork(LearnerDistribution((1, 1), (1, 1), activation="relu"), (1,), Discrete(1))
    layers = tuple({"kernel": jnp.full((1, 1), size), "bias": jnp.zeros(1)} for size in (1.0, 0.75))
    fresh = Weights(layers, (jnp.zeros(()),) * 2, NO_STD)
    distilled = Distilled(jnp.full((1, 1), 2.0), jnp.full((1, 1), 0.5), NO_STD, jnp.array([1.0, 1.0, 0.0]), ())
    hidden, output = clone(FeatureSteps(unit_steps=True), network, distilled, fresh).layers
    assert float(hidden["kernel"][0, 0]) == pytest.approx(1 - 2 / 5**0.5)
    assert float(hidden["bias"][0]) == pytest.approx(-1 / 5**0.5)
    assert (float(output["kernel"][0, 0]), float(output["bias"][0])) == (0.75, 0.0)


def test_unit_steps_do_not_ask_for_the_size_of_the_output_layer():
    setting = make_setting(DISCRETE, depth=2)
    distilled = setting.distilled._replace(inner_rate=jnp.array([0.8, 0.3, 0.0]))
    *hidden, last = setting.fresh.layers

    def first_kernel(size: float) -> jax.Array:
        # Targets that are missed by as much again: the gradient has the output layer's size.
        small = setting.fresh._replace(layers=(*hidden, {"kernel": size * last["kernel"], "bias": last["bias"]}))
        missed = setting.network.apply(small, distilled.observations) + 1.0
        cloning = FeatureSteps(unit_steps=True)
        return clone(cloning, setting.network, distilled._replace(targets=missed), small).layers[0]["kernel"]

    moved = first_kernel(1.0) - setting.fresh.layers[0]["kernel"]
    assert jnp.abs(moved).max() > 1e-2
    np.testing.assert_allclose(first_kernel(1e-3), first_kernel(1.0), atol=1e-4)


def numpy_feature_steps(setting: Setting, steps: int, unit_steps: bool) -> dict[str, np.ndarray]:
    """Steps of the hidden layers by manual backpropagation, then ridge regression pulled towards the fresh weights."""
    kernel_rate, bias_rate, rate = map(float, setting.distilled.inner_rate)
    expected, learnt = numpy_start(setting)
    last = max(int(name.split()[1]) for name in learnt if name != "log_std")
    hidden = [name for name in learnt if name not in (f"kernel {last}", f"bias {last}", "log_std")]
    for _ in range(steps):
        gradients = numpy_gradients("mse", expected, setting.distilled)
        norm = sum(float((gradients[name] ** 2).sum()) for name in hidden) ** 0.5 if unit_steps else 1.0
        for name in hidden:
            own = kernel_rate if name.startswith("kernel") else bias_rate
            expected[name] = expected[name] - own * gradients[name] / norm
    features = np.asarray(setting.distilled.observations, np.float64)
    for i in range(last):
        features = np.tanh(features @ expected[f"kernel {i}"] + expected[f"bias {i}"])
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    targets = np.asarray(setting.distilled.targets, np.float64)
    before = np.concatenate([expected[f"kernel {last}"], expected[f"bias {last}"][None]])
    factor = 2 * rate / targets.size
    left = np.eye(design.shape[1]) + factor * design.T @ design
    after = np.linalg.solve(left, before + factor * design.T @ targets)
    expected |= {f"kernel {last}": after[:-1], f"bias {last}": after[-1]}
    if expected["log_std"].size:
        pull = 2 * rate / expected["log_std"].size
        expected["log_std"] = (expected["log_std"] + pull * np.asarray(setting.distilled.log_std)) / (1 + pull)
    return expected


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("unit_steps", [False, True])
@pytest.mark.parametrize(
    ("actions", "encoder_layers", "steps"),
    [(DISCRETE, 0, 1), (CONTINUOUS, 0, 3), (CONTINUOUS, 1, 2), (DISCRETE, 2, 1), (DISCRETE, 0, 17)],
    ids=["discrete", "continuous", "behind-an-encoder", "readout-alone", "in-blocks"],
)
def test_feature_steps_equal_a_slow_twin(
    actions: Discrete | Continuous, encoder_layers: int, steps: int, unit_steps: bool
):
    setting = make_setting(actions, depth=2, encoder_layers=encoder_layers)
    setting = setting._replace(distilled=setting.distilled._replace(inner_rate=jnp.array([0.8, 0.3, 20.0])))
    found = run_clone(FeatureSteps(steps=steps, unit_steps=unit_steps), *setting)
    assert_same_parameters(found, numpy_feature_steps(setting, steps, unit_steps), 1e-4, 1e-5)


@pytest.mark.thorough
@pytest.mark.slow
def test_fewer_feature_steps_can_be_asked_for():
    setting = make_setting(DISCRETE)
    setting = setting._replace(distilled=setting.distilled._replace(inner_rate=jnp.array([0.8, 0.3, 20.0])))
    found = clone(FeatureSteps(steps=3), *setting, steps=jnp.array(1))
    assert_same_parameters(found, as_parameters(clone(FeatureSteps(), *setting)), 1e-5, 1e-6)


def test_feature_steps_of_another_loss_are_refused():
    with pytest.raises(FloppyError, match="loss must be mse"):
        FeatureSteps("huber")


def numpy_adam(cloning: AdamSteps, setting: Setting) -> dict[str, np.ndarray]:
    """Kingma and Ba's Adam, written out."""
    parameters, learnt = numpy_start(setting)
    first = {name: np.zeros_like(parameters[name]) for name in learnt}
    second = {name: np.zeros_like(parameters[name]) for name in learnt}
    for step in range(1, cloning.steps + 1):
        every = numpy_gradients(cloning.loss, parameters, setting.distilled)
        gradients = {name: every[name] for name in learnt}
        norm = math.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
        scale = min(1.0, cloning.max_grad_norm / norm) if cloning.max_grad_norm else 1.0
        rate = float(setting.distilled.inner_rate)
        if cloning.anneal:
            rate *= 1.0 - (step - 1) / cloning.steps
        for name in learnt:
            gradient = scale * gradients[name]
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            parameters[name] = parameters[name] - rate * mean / (np.sqrt(square + cloning.eps_root) + cloning.eps)
    return parameters


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "actions", "max_grad_norm", "anneal"),
    [
        pytest.param("mse", DISCRETE, 0.0, True, id="mse-discrete-annealed"),
        pytest.param("mse", CONTINUOUS, 0.05, False, id="mse-continuous-scaled-down"),
        pytest.param("cross-entropy", DISCRETE, 0.05, False, id="cross-entropy-scaled-down"),
        pytest.param("gaussian-nll", CONTINUOUS, 0.05, True, id="gaussian-nll-both"),
    ],
)
def test_adam_steps_equal_adam_written_out(
    loss: str, actions: Discrete | Continuous, max_grad_norm: float, anneal: bool
):
    cloning = AdamSteps(loss, steps=7, max_grad_norm=max_grad_norm, eps=1e-2, anneal=anneal)
    setting = make_setting(actions)
    expected = numpy_adam(cloning, setting)
    assert_same_parameters(run_clone(cloning, *setting), expected, 1e-8, 1e-10)


@pytest.mark.parametrize("loss", ["mse", "gaussian-nll"])
def test_adam_steps_equal_adam_written_out_in_single_precision(loss: str):
    cloning = AdamSteps(loss, steps=7)
    setting = make_setting(CONTINUOUS, depth=2, encoder_layers=1)
    assert_same_parameters(run_clone(cloning, *setting), numpy_adam(cloning, setting), 1e-3, 1e-4)


@pytest.mark.thorough(all_but=["step", "implicit-step-encoder", "feature-steps", "adam-nll-encoder"])
@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("cloning", "encoder_layers"),
    [
        pytest.param(GradientStep("mse"), 0, id="step"),
        pytest.param(GradientStep("mse", steps=3), 1, id="three-steps-encoder"),
        pytest.param(ImplicitStep(), 1, id="implicit-step-encoder"),
        pytest.param(FeatureSteps(steps=2), 0, id="feature-steps"),
        pytest.param(AdamSteps("mse", steps=4, anneal=True), 0, id="adam-annealed"),
        pytest.param(AdamSteps("gaussian-nll", steps=4), 1, id="adam-nll-encoder"),
    ],
)
def test_meta_gradient_equals_finite_differences(cloning: Cloning, encoder_layers: int):
    setting = make_setting(CONTINUOUS, depth=1, encoder_layers=encoder_layers)
    rates = jnp.full(rates_shape(cloning), setting.distilled.inner_rate)
    setting = setting._replace(distilled=setting.distilled._replace(inner_rate=rates))
    probes, weights = np.random.default_rng(9).normal(size=(2, 4, 3))

    @jax.jit
    def score(distilled: Distilled) -> jax.Array:
        """Any smooth function of the policy that comes out."""
        cloned = clone(cloning, setting.network, distilled, setting.fresh)
        output = setting.network.apply(cloned, jnp.asarray(probes))
        return jnp.sum(jnp.tanh(output) * weights[:, :2]) + jnp.sum(cloned.log_std**2)

    leaves, structure = jax.tree.flatten(setting.distilled)
    gradients = jax.tree.leaves(jax.grad(score)(setting.distilled))
    assert len(leaves) == 4 + 2 * encoder_layers
    # Only mean squared error has a target for the deviations.
    assert np.any(gradients[2] != 0.0) == (cloning.loss == "mse")
    for number, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        differences = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            scores = []
            for change in (1e-6, -1e-6):
                moved = [*leaves[:number], leaf.at[index].add(change), *leaves[number + 1 :]]
                scores.append(float(score(jax.tree.unflatten(structure, moved))))
            differences[index] = (scores[0] - scores[1]) / 2e-6
        np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-7, err_msg=f"leaf {number}")


def meta_gradient(cloning: Cloning, network: LayeredNetwork, distilled: Distilled, fresh: Weights) -> Distilled:
    def score(distilled: Distilled) -> jax.Array:
        return jnp.sum(network.apply(clone(cloning, network, distilled, fresh), jnp.ones((1, 3))))

    return jax.jit(jax.grad(score))(distilled)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(("activation", "max_grad_norm"), [("tanh", 0.0), ("relu", 0.5)])
def test_adam_meta_gradient_is_finite_where_some_gradients_are_zero(activation: str, max_grad_norm: float):
    # An unused unit, a layer left out and `skip` itself have gradients of exactly 0.
    network = LayeredNetwork(LearnerDistribution((2, 4), (1, 2), activation=activation), (3,), DISCRETE)
    _, distilled, fresh = make_setting(DISCRETE, depth=2)
    used = jnp.asarray([1.0, 1.0, 1.0, 0.0])
    first, between, last = fresh.layers
    first = {"kernel": first["kernel"] * used[None], "bias": first["bias"] * used}
    last = last | {"kernel": last["kernel"] * used[:, None]}
    fresh = fresh._replace(layers=(first, between, last), skip=(jnp.zeros(()), jnp.ones(()), jnp.zeros(())))
    cloning = AdamSteps("cross-entropy", steps=3, max_grad_norm=max_grad_norm)
    gradients = meta_gradient(cloning, network, distilled, fresh)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.any(gradients.observations != 0.0)


@pytest.mark.thorough(all_but=["0.5"])
@pytest.mark.slow
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.5])
def test_adam_meta_gradient_is_finite_where_every_gradient_is_zero(max_grad_norm: float):
    # A policy that already puts out its targets has nothing to learn.
    # Observations of 0 without biases are put out as exactly 0.
    network, distilled, fresh = make_setting(DISCRETE)
    fresh = fresh._replace(layers=tuple(layer | {"bias": jnp.zeros_like(layer["bias"])} for layer in fresh.layers))
    distilled = distilled._replace(observations=jnp.zeros((5, 3)), targets=jnp.zeros((5, 2)))
    cloning = AdamSteps("mse", steps=2, max_grad_norm=max_grad_norm)
    gradients = meta_gradient(cloning, network, distilled, fresh)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


CLONINGS = [
    pytest.param(GradientStep("mse"), id="gradient-step"),
    pytest.param(AdamSteps("mse", steps=3), id="adam-steps"),
]


@pytest.mark.parametrize("cloning", CLONINGS)
@pytest.mark.parametrize("encoder_layers", [1, 2])
def test_encoder_layers_come_out_exactly_as_given(cloning: Cloning, encoder_layers: int):
    network, distilled, fresh = make_setting(CONTINUOUS, depth=2, encoder_layers=encoder_layers)
    cloned = run_clone(cloning, network, distilled, fresh)
    jax.tree.map(np.testing.assert_array_equal, cloned.layers[:encoder_layers], distilled.encoder)
    for before, after in zip(fresh.layers[encoder_layers:], cloned.layers[encoder_layers:], strict=True):
        assert np.all(before["bias"] != after["bias"])


@pytest.mark.parametrize("cloning", CLONINGS)
def test_full_encoder_is_the_policy(cloning: Cloning):
    network, distilled, fresh = make_setting(CONTINUOUS, depth=2, encoder_layers=3)
    cloned = run_clone(cloning, network, distilled, fresh)
    jax.tree.map(np.testing.assert_array_equal, cloned.layers, distilled.encoder)
    np.testing.assert_array_equal(cloned.log_std, distilled.log_std)
    assert network.apply(cloned, distilled.observations).shape == (5, 2)


@pytest.mark.parametrize(("loss", "actions"), CASES)
def test_losses_that_suit_the_actions_pass(loss: str, actions: Discrete | Continuous):
    check_loss(loss, actions)


@pytest.mark.parametrize(
    ("loss", "actions", "words"),
    [
        ("cross-entropy", CONTINUOUS, ["cross-entropy", "continuous", "mse, gaussian-nll, huber"]),
        ("gaussian-nll", DISCRETE, ["gaussian-nll", "discrete", "mse, cross-entropy, huber"]),
        ("hinge", DISCRETE, ["hinge", "mse, cross-entropy"]),
        ("", CONTINUOUS, ["loss must be one of", "mse", "gaussian-nll"]),
    ],
)
def test_losses_that_do_not_are_refused(loss: str, actions: Discrete | Continuous, words: list[str]):
    with pytest.raises(FloppyError) as refusal:
        check_loss(loss, actions)
    assert all(word in str(refusal.value) for word in words)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("recipe", [GradientStep, AdamSteps])
@pytest.mark.parametrize("steps", [0, -3])
def test_fewer_than_one_step_is_refused(recipe: type[Cloning], steps: int):
    with pytest.raises(FloppyError, match="steps") as refusal:
        recipe(steps=steps)
    assert str(steps) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", [GradientStep, AdamSteps])
def test_memory_of_the_meta_gradient_grows_with_the_root_of_the_steps(kind: type) -> None:
    network = LayeredNetwork(LearnerDistribution((64, 64), (1, 1)), (50,), DISCRETE)
    examples = Distilled(jnp.ones((2, 50)), jnp.ones((2, 2)), NO_STD, jnp.asarray(0.1), ())
    fresh = jax.jit(network.init)(jax.random.key(0))

    def temporary_bytes(steps: int) -> int:
        def loss(observations: jax.Array) -> jax.Array:
            cloned = clone(kind("mse", steps), network, examples._replace(observations=observations), fresh)
            return jnp.sum(network.apply(cloned, observations))

        memory = jax.jit(jax.grad(loss)).lower(examples.observations).compile().memory_analysis()
        return int(memory.temp_size_in_bytes)

    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(fresh.layers))
    few, many = temporary_bytes(100), temporary_bytes(900)
    assert few > 10 * weights, "the measure sees the states"
    assert many < 4 * few, "nine times the steps, three times the states"


@pytest.mark.parametrize("wanted", [1, 2, 6])
def test_clones_made_in_batches_are_those_made_at_once(wanted: int, monkeypatch: pytest.MonkeyPatch):
    """Of discrete actions `log_std` is an empty array."""
    cloning = AdamSteps(loss="mse", steps=3)
    for space in (Continuous(2, (-1.0, -1.0), (1.0, 1.0)), Discrete(2)):
        setting = make_setting(space)
        fresh = jax.vmap(setting.network.init)(jax.random.split(jax.random.key(5), 6))

        def one(weights: Weights, setting: Setting = setting) -> Weights:
            return clone(cloning, setting.network, setting.distilled, weights)

        numbers = sum(leaf.size for leaf in jax.tree.leaves(fresh)) // 6
        monkeypatch.setattr(base, "CACHE_BYTES", 4 * base.COPIES * numbers * wanted)
        assert base._clones_at_a_time(cloning, one, fresh, 6) == wanted
        together = jax.vmap(one)(fresh)
        found = map_clones(cloning, one, fresh)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, together)


@pytest.mark.parametrize(
    ("cloning", "room", "wanted"),
    [
        (GradientStep(), 1.0, 12),  # a single step does better at once
        (ImplicitStep(), 100.0, 1),
        (AdamSteps(loss="mse", steps=2), 0.5, 1),  # one is too large for the caches already
        (AdamSteps(loss="mse", steps=2), 5.9, 4),  # 5 is no divisor of 12
        (AdamSteps(loss="mse", steps=2), 100.0, 12),
    ],
)
def test_as_many_clones_at_a_time_as_the_caches_hold(
    cloning: Cloning, room: float, wanted: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(base, "CACHE_BYTES", int(room * base.COPIES * 4 * 100))
    assert base._clones_at_a_time(cloning, lambda x: x, jnp.zeros((12, 100)), 12) == wanted
