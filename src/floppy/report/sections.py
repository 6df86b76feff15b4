"""The sections of a report, in words that a stranger understands."""

import importlib.metadata
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from floppy.drawing.base import Scene
from floppy.drawing.page import caption_of
from floppy.drawing.plain import number_text
from floppy.drawing.scenes import groups_of
from floppy.evaluation.score import FEW, Score
from floppy.files import MEBIBYTE, size_text
from floppy.learner.distribution import describe_distribution
from floppy.report import html
from floppy.report.episode import steps_shown
from floppy.report.measures import Extent, Measured
from floppy.report.pictures import (
    curve_picture,
    episode_picture,
    influence_picture,
    map_picture,
    numbers_of,
    scene_picture,
    scores_picture,
)
from floppy.report.references import PLAIN_PPO, references_of
from floppy.report.source import Source
from floppy.spaces import Continuous
from floppy.tasks.base import EPISODIC, Task, episode_word, kind_of, picture_of, score_unit
from floppy.tasks.descriptions import description_of
from floppy.tasks.untrusted import module_of
from floppy.teach.codec import DISTRIBUTION, Lesson, unpack

MOST_EXAMPLES = 16
"""That are drawn."""
MOST_OPEN = 4
"""Of them, that are seen at once; a click unfolds the others."""
MOST_ACTIONS = 6
"""Of a target, the largest, in their order."""
LEAST_SHARE = 0.01
"""Of many actions, one that is less likely has no bar."""
CHANCE = 1.3
"""Targets whose probabilities are all below so many times that of chance are called alike."""
MOST_DOWNLOAD = 3 * MEBIBYTE
SCORES_CAPTION = (
    "Orange is this dataset. A line is the 95% interval of the table below, where it is wide enough to be seen."
)


class Story(NamedTuple):
    """All that the sections are made from."""

    source: Source
    lesson: Lesson
    task: Task
    measured: Measured
    extent: Extent

    @property
    def unit(self) -> str:
        """What a score is called."""
        return score_unit(self.task)

    @property
    def how_many(self) -> str:
        """How many examples, in words."""
        count = self.source.dataset.examples
        return f"{count} example{'' if count == 1 else 's'}"

    @property
    def is_played(self) -> bool:
        """Whether there are episodes; else there are answers."""
        return kind_of(self.task) in EPISODIC

    @property
    def chance(self) -> str:
        """Who knows nothing."""
        return "random actions" if self.is_played else "guessing"

    @property
    def steps(self) -> str:
        """How many training steps, in words."""
        steps = self.lesson.cloning.steps
        return "one training step" if steps == 1 else f"{steps} training steps"


def page_of(source: Source, measured: Measured, extent: Extent) -> str:
    """The page about a dataset: HTML, in which nothing that the card, folder or file says is taken for markup."""
    lesson = unpack(source.dataset)
    story = Story(source, lesson, lesson.task(), measured, extent)
    sections: tuple[Callable[[Story], str], ...] = (
        _lead,
        _about_task,
        _examples,
        _episode,
        _score,
        _curve,
        _influence,
        _map,
        _transfer,
        _making,
        _download,
    )
    what = "a trained policy" if source.dataset.card.is_plain_policy else f"taught by {story.how_many}"
    title = f"{source.dataset.card.task}, {what}"
    version = importlib.metadata.version(DISTRIBUTION)
    return html.page(title, filter(None, (section(story) for section in sections)), version)


def _lead(story: Story) -> str:
    score, random = story.measured.score, story.measured.random
    best = "" if story.task.max_return is None else f", of at most {_number(story.task.max_return)}"
    if story.source.dataset.card.is_plain_policy:
        text = "This file holds a whole trained policy; nothing is left to learn."
        return html.paragraph(f"{text} It reaches {_number(score.mean)}{best} ({story.unit}).", "lead")
    layers = len(story.lesson.distilled.encoder)
    stored = f" Its first {layers} layers are not random: they come trained, with the examples." if layers else ""
    plain = [each.mean for each in references_of(story.source.dataset) if each.who == PLAIN_PPO]
    longer = f", plain PPO, which trains on the task itself, {_number(plain[0])}" if plain else ""
    chance = "Random actions reach" if story.is_played else "Guessing reaches"
    return html.paragraph(
        f"A neural network with random weights takes {story.steps} on {story.how_many} that a computer has made up, "
        f"and then reaches {_number(score.mean)}{best} ({story.unit}). {chance} {_number(random.mean)}{longer}. "
        f"{_search_of(story)}{stored}",
        "lead",
    )


def _search_of(story: Story) -> str:
    """Who has seen the task."""
    steps = story.source.dataset.card.algorithm.get("env_steps")
    if not isinstance(steps, int | float) or not steps:
        return "The network itself has never seen the task."
    return f"The examples were found by trial in the task, {_whole(steps)} steps of it; the network has never seen it."


def _about_task(story: Story) -> str:
    task, picture = story.task, picture_of(story.task)
    shape = task.observation_shape
    is_flat = len(shape) == 1
    cells = "cells" if picture.kind == "cells" else "pixels"
    sees = f"{shape[0]} numbers" if is_flat else " × ".join(map(str, shape[:2])) + f" {cells}"
    if len(shape) == 3 and shape[2] > 1:
        sees += f" in {shape[2]} channels"
    if picture.names and len(picture.names) <= 12:
        sees += f" ({', '.join(picture.names)})"
    named = f" ({', '.join(picture.actions)})" if 0 < len(picture.actions) <= 10 else ""
    actions = story.lesson.actions
    does = f"chooses one of {actions.size} actions"
    if isinstance(actions, Continuous):
        does = "sets one number" if actions.size == 1 else f"sets {actions.size} numbers"
        named += _range_of(actions)
    parts = [description_of(task), f"A policy sees {sees}, and {does}{named}."]
    if story.is_played:
        parts.append(f"An episode ends after at most {task.max_steps:,} steps; its return is the sum of all rewards.")
    return html.section("The task", html.paragraph(" ".join(filter(None, parts))))


def _range_of(actions: Continuous) -> str:
    """The bounds of continuous actions in words, where all have the same."""
    bounds = set(zip(actions.low, actions.high, strict=True))
    if len(bounds) != 1:
        return ""
    ((low, high),) = bounds
    return f", {'each ' if actions.size > 1 else ''}from {number_text(low)} to {number_text(high)}"


def _examples(story: Story) -> str:
    dataset = story.source.dataset
    if not dataset.examples:
        return ""
    chosen = np.linspace(0, dataset.examples - 1, min(MOST_EXAMPLES, dataset.examples)).round().astype(int)
    (group,) = groups_of(dataset, chosen.tolist())
    shown = (
        "These are all that the network learns from."
        if len(chosen) == dataset.examples
        else f"These are {len(chosen)} of the {dataset.examples} that the network learns from, at equal distances."
    )
    first = group.scenes[0]
    target = (
        "how likely each action is to be"
        if first.target is None or first.target.is_discrete
        else "how large each action is to be: to the left is less than the middle of its range"
    )
    decimals = int(_are_alike(group.scenes))
    if decimals:
        target += ", nearly as likely as any other here: training makes much of the small differences"
    reach = _reach(group.scenes)
    if reach > 1:
        target += (
            f". Bars end at {number_text(reach)} times the range; what is beyond the range is cut off before the task "
            "sees it"
        )
    head = (
        f"{shown} Each picture is an observation, but not one from the task: it is whatever teaches best, and need not "
        f"look like the task. The bars below it say {target}."
    )
    cards = [_example(scene, index, reach, decimals) for scene, index in zip(group.scenes, group.indexes, strict=True)]
    first_ones, others = (
        f'<div class="examples">{"".join(some)}</div>' for some in (cards[:MOST_OPEN], cards[MOST_OPEN:])
    )
    folded = html.details(f"{len(cards) - MOST_OPEN} more examples", others) if len(cards) > MOST_OPEN else ""
    caption = html.paragraph(caption_of(first), "note")
    return html.section("The examples", html.paragraph(head), caption, first_ones, folded)


def _reach(scenes: Sequence[Scene]) -> float:
    """The largest target in shares of the action's range, 1 at least: so long bars do not all look the same."""
    targets = [scene.target for scene in scenes if scene.target and not scene.target.is_discrete]
    sizes = [np.nan_to_num(np.abs(each.strength), posinf=0.0).max() for each in targets]
    return float(max([1.0, *sizes]))


def _are_alike(scenes: Sequence[Scene]) -> bool:
    """Whether targets are so close to chance that whole percents would all be the same."""
    targets = [scene.target for scene in scenes if scene.target and scene.target.is_discrete]
    return bool(targets) and all(each.values.max() < CHANCE * each.values.mean() for each in targets)


def _example(scene: Scene, index: int, reach: float, decimals: int) -> str:
    """An example's picture, and its target as bars that are full at `reach`, percents with so many `decimals`."""
    target = scene.target
    name = f"Example {index}"
    if target is None:
        return html.figure(scene_picture(scene, name)._replace(caption=numbers_of(scene)))
    largest = np.argsort(-np.abs(target.strength), kind="stable")[:MOST_ACTIONS]
    if target.is_discrete and len(target.values) > MOST_ACTIONS:
        largest = largest[target.values[largest] >= LEAST_SHARE]
    order = np.sort(largest)
    rows = [
        (
            target.names[i],
            float(target.strength[i]) / (1.0 if target.is_discrete else reach),
            f"{target.values[i]:.{decimals}%}" if target.is_discrete else number_text(float(target.values[i])),
            target.is_discrete,
        )
        for i in order
    ]
    said = ", ".join(f"{who} {text}" for who, _, text, _ in rows)
    omitted = len(target.values) - len(order)
    more = f"and {omitted} {'less likely' if target.is_discrete else 'smaller'}" if omitted else ""
    picture = scene_picture(scene, f"{name}: an observation. Target: {said}")
    return html.example(picture, name, rows, more, numbers_of(scene))


def _episode(story: Story) -> str:
    episode = story.measured.episode
    if episode is None:
        return _left_out("How it plays", story, "episode")
    steps, shown = len(episode.observations), steps_shown(episode)
    earned = "" if episode.total is None else f" and its return was {_number(episode.total)}"
    length = f"It lasted {steps} steps{earned}." if episode.has_ended else ""
    if shown < steps or not length:
        length += f" These are its first {shown} steps."
    length = length.strip()
    first = "One policy, trained a moment before on the examples above and on nothing else, plays an episode."
    if story.source.dataset.card.is_plain_policy:
        first = "The policy in this file plays an episode."
    picture = episode_picture(
        story.task, episode, f"An episode of {story.task.task_id}, {steps} steps, as a moving picture", length
    )
    return html.section("How it plays", html.paragraph(first), html.figure(picture))


def _score(story: Story) -> str:
    score, random, extent = story.measured.score, story.measured.random, story.extent
    plain = story.source.dataset.card.is_plain_policy
    rows: list[tuple[str, float, tuple[float, float] | None]] = [
        ("the policy in this file" if plain else "fresh networks, taught by these examples", score.mean, score.ci95),
        (story.chance, random.mean, random.ci95),
        *((each.who, each.mean, None) for each in references_of(story.source.dataset)),
    ]
    table = html.table(
        ("who", story.unit, "95% interval"),
        [(who, _number(mean), _interval(interval)) for who, mean, interval in rows],
        own=0,
    )
    many = "" if plain else f"Each of {extent.learners} networks with weights of its own was taught, and then "
    did = "played" if story.is_played else "was asked about"
    text = f"{many}{'It' if plain else 'it'} {did} {score.episodes} {episode_word(story.task)}" + (
        ". The interval says how well the mean is known: of 100 reports like this one, about 95 would have the mean "
        f"over all possible {'episodes' if plain else 'networks'} within it{_with_few(score)}. Scores without an "
        "interval were not measured here."
    )
    if score.diverged:
        text += f" {score.diverged} networks diverged in training, and count as the worst."
    alt = ", ".join(f"{who} {_number(mean)}" for who, mean, _ in rows)
    picture = scores_picture(rows, story.unit, f"Scores: {alt}", SCORES_CAPTION)
    return html.section("The score", html.paragraph(text), html.figure(picture), table, _of_card(story))


def _with_few(score: Score) -> str:
    """What the interval rests on where it is of few numbers."""
    is_rough = (score.learners if score.learners > 1 else score.episodes) < FEW
    return ", if scores spread alike to both sides; among so few a rare failure may not show" if is_rough else ""


def _of_card(story: Story) -> str:
    score = story.source.dataset.card.score
    if not score:
        return ""
    return html.paragraph(
        f"When the dataset was made its score was {_number(score['mean'])} (standard deviation "
        f"{_number(score['sd'])}), of {score['learners']} "
        f"networks x {score['episodes']} {episode_word(story.task)}.",
        "note",
    )


def _curve(story: Story) -> str:
    if not story.source.log:
        return ""
    picture = curve_picture(
        story.source.log,
        story.unit,
        (story.chance, story.measured.random.mean),
        "A curve of the score of fresh networks over the environment steps of the run",
        "Every dot is a test: fresh networks were taught by the examples as they stood.",
    )
    if picture is None:
        return ""
    text = "The run improved the examples step by step."
    return html.section("How the examples were learned", html.paragraph(text), html.figure(picture))


def _influence(story: Story) -> str:
    found = story.measured.influence
    heading = "Which example matters most"
    if story.source.dataset.examples < 2:
        return ""
    if found is None:
        return _left_out(heading, story, "influence")
    examples = [each for each in found.summary.get("examples", []) if each["fall"] is not None]
    if not examples:
        return ""
    most = max(examples, key=lambda each: each["fall"])
    tried, count = len(found.summary["examples"]), story.source.dataset.examples
    which = "Each example is" if tried == count else f"{tried} of the examples, at equal distances, are"
    worst = (
        f"Example {most['example']} matters most{'' if tried == count else ' of these'}: without it the {story.unit} "
        f"of these networks falls from {_number(found.summary['score']['mean'])} to {_number(most['score'])}."
        if most["fall"] > 0
        else "None of them is missed: without any single one the score does not fall."
    )
    text = (
        f"{which} left out in turn, and networks learn from the others. The higher a bar, the more the score falls. "
        f"{worst} (These networks are others than those of the score above, and begin from a mean of their own.)"
    )
    alt = "Fall of the score without example " + ", ".join(
        f"{each['example']}: {_number(each['fall'])}" for each in examples
    )
    picture = influence_picture(
        examples, story.unit, alt, "Thin lines are 95% intervals; below 0 it helps to leave it out."
    )
    return html.section(heading, html.paragraph(text), html.figure(picture))


def _map(story: Story) -> str:
    found = story.measured.influence
    if found is None or not found.points:
        return ""
    first, second = found.summary["map"]["features"]
    text = (
        f"{first} and {second} are the two numbers of an observation on which actions hang most; here they are varied, "
        "and all others stay at their means over random play. The colour says what "
        f"{story.extent.learners} policies do on average."
    )
    alt = f"A map of actions over {first} and {second}; outputs shown: {', '.join(found.summary['map']['outputs'])}"
    return html.section(
        "What policies do in which situation", html.paragraph(text), html.figure(map_picture(found.points, alt, ""))
    )


def _transfer(story: Story) -> str:
    found = story.measured.transfer
    heading = "Other networks"
    if story.source.dataset.card.is_plain_policy:
        return ""
    if found is None:
        return _left_out(heading, story, "transfer")
    rows = [("its own kind of network", story.measured.score), *found.items()]
    text = "Whether the same examples teach networks of sizes for which they were not made."
    table = html.table(
        ("network", story.unit, "95% interval"),
        [(who, _number(score.mean), _interval(score.ci95)) for who, score in rows],
        own=0,
    )
    return html.section(heading, html.paragraph(text), table)


def _making(story: Story) -> str:
    card = story.source.dataset.card
    name = card.algorithm.get("name", "")
    known = [
        ("method", name),
        ("seed", "" if card.seed is None else card.seed),
        ("environment steps", _whole(card.algorithm.get("env_steps"))),
        ("networks", ", ".join(map(describe_distribution, story.lesson.learners))),
        ("training", f"{card.cloning.get('kind', '')}, {story.steps}"),
        ("versions", ", ".join(f"{package} {version}" for package, version in sorted(card.versions.items()))),
        ("licence", card.licence),
        ("notes", card.notes),
    ]
    score = f"floppy evaluate {shlex.quote(story.source.typed)} --learners {story.extent.learners}"
    score += f" --episodes {story.extent.episodes} --seed {story.extent.seed}"
    if module := module_of(card.task, card.command):
        score += f" --import {module}"
    return html.section(
        "How it was made",
        html.paragraph("The command that made the examples, as their card has it:"),
        html.command(card.command or "none is known"),
        html.paragraph("The command that repeats the score above:"),
        html.command(score),
        html.facts((key, value) for key, value in known if value not in ("", None)),
    )


def _download(story: Story) -> str:
    data = story.source.data
    size = size_text(len(data))
    text, use = "All that was learned is in one file, which any programming language can read (a safetensors file).", ""
    if not story.source.dataset.card.is_plain_policy:
        sizes = "" if story.lesson.distilled.encoder else ", of other sizes too,"
        text += f" Whoever has it can train new policies{sizes} within milliseconds, without the task:"
        use = html.command(f"pip install floppy-rl\nfloppy train {shlex.quote(story.source.typed)} --learners 10")
    if len(data) > MOST_DOWNLOAD:
        where = f"With {size} it is too large for this page; it lies in {story.source.path}."
        return html.section("The data", html.paragraph(text), use, html.paragraph(where))
    link = html.download(data, story.source.file_name, f"Download {html.short(story.source.file_name)} ({size})")
    return html.section("The data", html.paragraph(text), use, link)


def _left_out(heading: str, story: Story, part: str) -> str:
    """A section that says why it is empty; nothing where there is no reason."""
    reason = story.measured.reasons.get(part, "")
    return html.section(heading, html.paragraph(reason, "note")) if reason else ""


def _number(value: Any) -> str:
    """A number of a score; a card's may be anything."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.1f}" if abs(value) < 1e4 else f"{value:,.0f}"


def _whole(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else ""


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{_number(interval[0])} to {_number(interval[1])}"
