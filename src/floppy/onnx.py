"""ONNX: `floppy.onnx.export` writes a trained policy as a graph that any ONNX runtime runs, without floppy or JAX.

The graph is built with the `onnx` package alone. Nothing else imports this module.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from floppy.errors import FloppyError, check_kind
from floppy.files import check_new_file, write_atomically
from floppy.learner.mlp import PlainLayer
from floppy.play.normalise import CLIP
from floppy.teach.policies import PlainPolicy, Policy

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise FloppyError("floppy.onnx needs onnx, which is not installed: pip install 'floppy-rl[onnx]'.") from error

OPSET, IR = 20, 9
"""Versions of the operators and of the file: the first ones that know GELU's tanh approximation."""

INPUT, LOGITS, MEAN, STD = "observations", "logits", "mean", "std"


def export(policy: Policy, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a policy as an ONNX model.

    Its input is `observations [k, *obs]`, float32, in the task's units (pixels as 0 .. 1); it normalises them itself.
    Its output is `logits [k, a]` for discrete actions; for continuous ones `mean [k, a]` and `std [a]` of a normal
    distribution in the task's units, whose samples are clipped to `low` and `high`. The model's metadata say the
    `task` and its `actions`, as on a dataset's card.

    Args:
      policy: with a network of floppy's own, such as `floppy.train(dataset, 0)[0]`.
      path: the file, by custom `NAME.onnx`.
      overwrite: whether a file that stands there may be replaced.

    Raises:
      FloppyError: for anything but one policy, for a network of one's own or an ensemble, for policies that cannot know
        what to do (see `Policy.act`), or if the file exists or cannot be written.
    """
    check_kind("policy", policy, Policy, "one Policy, such as floppy.train(dataset, 0)[0]")
    check_new_file(path, overwrite=overwrite)
    model = _model(policy, policy.plain("ONNX"))
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str | np.ndarray | np.float32, name: str = "", **attributes: Any) -> str:
        """Adds a node; arrays among its inputs become constants. Gives the name of its output."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def _constant(self, array: np.ndarray | np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name


def _model(policy: Policy, plain: PlainPolicy) -> Any:
    graph, shape, actions = _Graph(), policy.network.observation_shape, policy.network.actions
    hidden = INPUT
    if plain.mean is not None and plain.deviation is not None:
        hidden = graph.add("Div", graph.add("Sub", hidden, plain.mean), plain.deviation)
        hidden = graph.add("Clip", hidden, np.float32(-CLIP), np.float32(CLIP))
    hidden = _hidden(graph, hidden, plain.layers[:-1], is_flat=len(shape) == 1)
    outputs = _outputs(graph, hidden, plain)
    body = helper.make_graph(
        graph.nodes,
        "policy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["k", *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, form) for name, form in outputs.items()],
        graph.constants,
    )
    model = helper.make_model(body, producer_name="floppy", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    helper.set_model_props(model, {"task": policy.task, "actions": json.dumps(actions.as_entry(), sort_keys=True)})
    return model


def _hidden(graph: _Graph, hidden: str, layers: list[PlainLayer], *, is_flat: bool) -> str:
    """What the output layer reads: `[k, f]`. Convolutions have channels first here, flattened they are last."""
    convolutions = [layer for layer in layers if layer.convolution]
    if convolutions:
        hidden = graph.add("Transpose", hidden, perm=[0, 3, 1, 2])
        for layer in convolutions:
            hidden = _convolution(graph, hidden, layer)
        hidden = graph.add("Transpose", hidden, perm=[0, 2, 3, 1])
    if not is_flat:
        hidden = graph.add("Flatten", hidden)
    for layer in layers[len(convolutions) :]:
        hidden = _ACTIVATIONS[layer.activation](graph, graph.add("Gemm", hidden, layer.kernel, layer.bias))
    return hidden


def _convolution(graph: _Graph, images: str, layer: PlainLayer) -> str:
    """`[k, channels, rows, columns]` after the layer, its activation and its pooling."""
    about = layer.convolution
    assert about is not None
    form: dict[str, Any] = {"strides": [about.stride] * 2, "pads": [about.padding] * 4}
    kernel = layer.kernel.transpose(3, 2, 0, 1)
    if about.normalises:
        values = graph.add("Conv", images, kernel, **form)
        values = graph.add("InstanceNormalization", values, np.ones_like(layer.bias), layer.bias, epsilon=1e-5)
    else:
        values = graph.add("Conv", images, kernel, layer.bias, **form)
    values = _ACTIVATIONS[layer.activation](graph, values)
    squares: dict[str, Any] = {"kernel_shape": [about.pool] * 2, "strides": [about.pool] * 2}
    return values if about.pool == 1 else graph.add("AveragePool", values, **squares)


def _outputs(graph: _Graph, hidden: str, plain: PlainPolicy) -> dict[str, list[Any]]:
    """The outputs' names with their shapes."""
    output, size = plain.layers[-1], len(plain.layers[-1].bias)
    name = MEAN if plain.log_std.size else LOGITS
    graph.add("Gemm", hidden, output.kernel, output.bias, name=name)
    if name == LOGITS:
        return {LOGITS: ["k", size]}
    graph.add("Identity", np.exp(plain.log_std), name=STD)
    return {MEAN: ["k", size], STD: [size]}


_ACTIVATIONS: dict[str, Callable[[_Graph, str], str]] = {
    "tanh": lambda graph, values: graph.add("Tanh", values),
    "relu": lambda graph, values: graph.add("Relu", values),
    "gelu": lambda graph, values: graph.add("Gelu", values, approximate="tanh"),
    "silu": lambda graph, values: graph.add("Mul", values, graph.add("Sigmoid", values)),
    "elu": lambda graph, values: graph.add("Elu", values),
}
"""As in `floppy.learner.activations`."""

__all__ = ("export",)
