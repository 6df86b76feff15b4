"""What all benchmarks share: times, counted operations, ceilings of the machine, and rows of the table."""

import dataclasses
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

REPEATS = 5
CEILING_SIDE = 2048
"""Of the square matrices whose product is the machine's ceiling."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: float
    unit: str
    floor: float | None = None
    """What `value` would be if nothing but counted operations took time, each at its ceiling."""
    by: str = ""
    """What the floor counts."""
    of_floor: float | None = None
    """The share of it that is reached, 0 .. 1."""


def rate(what: str, per_second: float, unit: str, floor: float | None = None, by: str = "") -> Row:
    """A row of so many `unit` per second; more is better."""
    return Row(what, per_second, f"{unit}/s", floor, by, None if floor is None else per_second / floor)


def duration(what: str, seconds: float, floor: float | None = None, by: str = "") -> Row:
    """A row of seconds; less is better."""
    return Row(what, seconds, "s", floor, by, None if floor is None else floor / seconds)


def fastest(function: Callable[..., Any], *arguments: Any, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several calls, a first one left out."""
    jax.block_until_ready(function(*arguments))
    return min(timed(function, *arguments) for _ in range(repeats))


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started


def middle(function: Callable[[], float], repeats: int) -> float:
    """The median of several measurements."""
    return statistics.median(function() for _ in range(repeats))


def per_loop(part: Callable[[Any, jax.Array], Any], state: Any, count: int, repeats: int = REPEATS) -> float:
    """Seconds of one `state = part(state, index)` within a compiled loop of `count`."""

    def loop(state: Any) -> Any:
        return jax.lax.scan(lambda s, i: (part(s, i), None), state, jnp.arange(count))[0]

    return fastest(jax.jit(loop), state, repeats=repeats) / count


def product_flops(function: Callable[..., Any], *arguments: Any, trips: float = 1.0) -> float:
    """Floating-point operations of the matrix products and convolutions of a function, a part of its work.

    Of the branches of a condition the one with the most counts.

    Args:
      function: any that JAX traces.
      *arguments: of it.
      trips: how often loops run whose number of turns is not known before.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr, trips)


def _flops(jaxpr: Jaxpr, trips: float) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * math.prod(kernel) / outputs * math.prod(equation.outvars[0].aval.shape)
        else:
            times = {"scan": equation.params.get("length", 1), "while": trips}.get(name, 1)
            inner_ones = [_flops(each, trips) for each in _inner(equation.params)]
            total += times * (max(inner_ones, default=0.0) if name == "cond" else sum(inner_ones))
    return total


def _inner(parameters: dict[str, Any]) -> list[Jaxpr]:
    values = [each for value in parameters.values() for each in (value if isinstance(value, tuple | list) else [value])]
    return [each.jaxpr if isinstance(each, ClosedJaxpr) else each for each in values if _is_jaxpr(each)]


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def ceiling() -> float:
    """Floating-point operations per second of a large matrix product, on all cores."""
    square = jax.random.normal(jax.random.key(0), (CEILING_SIDE, CEILING_SIDE))
    return 2.0 * CEILING_SIDE**3 / fastest(jax.jit(lambda a: a @ a), square)


def product_rate(*shape: int) -> float:
    """Floating-point operations per second of `[m, k] @ [k, n]` within a compiled loop, for `shape` m, k, n."""
    m, k, n = shape
    a, b = jnp.ones((m, k)), jnp.full((k, n), 1e-3)
    seconds = per_loop(lambda b, _: b + 1e-9 * jnp.sum(a @ b), b, max(10, int(2e9 / (2 * m * k * n))))
    return 2.0 * m * k * n / seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "ceiling_gflops": ceiling() / 1e9,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
