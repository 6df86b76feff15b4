"""Plays cart-pole from a distilled dataset, with NumPy and Gymnasium alone: python numpy_only.py DATASET [--seed S]."""

import argparse
import json
import struct

import gymnasium
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("dataset", help="a .safetensors file distilled from cart-pole for one gradient step")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
random = np.random.default_rng(arguments.seed)

# The file: eight bytes of header length, a JSON header, the tensors (docs/dataset-format.md).
with open(arguments.dataset, "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    data = file.read()
card = json.loads(header.pop("__metadata__")["floppy"])
assert card["task"] in ("ndcartpole/1", "gymnax/CartPole-v1"), "not of Gymnasium's CartPole-v1"
assert card["format"] == 1 and card["normaliser"] == "none" and card["encoder"] is None, "not for this script"
assert card["cloning"] == {"kind": "GradientStep", "loss": "mse", "steps": 1}, "not for this script"
tensors = {key: np.frombuffer(data[slice(*t["data_offsets"])], "<f4").reshape(t["shape"]) for key, t in header.items()}
observations, targets, inner_rate = tensors["observations"], tensors["targets"], tensors["inner_rate"]

# A fresh policy, which knows nothing: observation -> 64 -> 64 -> one logit per action.
kernels, biases = [], []
for inputs, outputs, gain in ((observations.shape[1], 64, 2**0.5), (64, 64, 2**0.5), (64, targets.shape[1], 0.01)):
    q, r = np.linalg.qr(random.normal(size=(max(inputs, outputs), min(inputs, outputs))))
    q *= gain * np.sign(np.diag(r))  # orthonormal columns, uniformly distributed, times the gain
    kernels.append(q if inputs >= outputs else q.T)
    biases.append(np.zeros(outputs))


def activations(inputs):
    """The inputs and every layer's output: tanh, tanh, logits."""
    hidden1 = np.tanh(inputs @ kernels[0] + biases[0])
    hidden2 = np.tanh(hidden1 @ kernels[1] + biases[1])
    return [inputs, hidden1, hidden2, hidden2 @ kernels[2] + biases[2]]


# One gradient step on mean((logits - targets)²) over the synthetic examples: all the training there is.
values = activations(observations)
slope = 2 * (values[3] - targets) / targets.size
for i in (2, 1, 0):
    slope_below = slope @ kernels[i].T * (1 - values[i] ** 2)  # through the kernel as it was, and the tanh below
    kernels[i] = kernels[i] - inner_rate * values[i].T @ slope
    biases[i] = biases[i] - inner_rate * slope.sum(axis=0)
    slope = slope_below

environment, rewards, episodes = gymnasium.make("CartPole-v1"), 0.0, 20
for episode in range(episodes):
    observation, ended = environment.reset(seed=arguments.seed + episode)[0], False
    while not ended:
        logits = activations(observation)[3]
        odds = np.exp(logits - logits.max())  # the action is sampled from softmax(logits)
        observation, reward, terminated, truncated, _ = environment.step(random.choice(len(odds), p=odds / odds.sum()))
        rewards, ended = rewards + reward, terminated or truncated
print(rewards / episodes)
