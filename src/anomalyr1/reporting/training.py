"""The report of a training run: one HTML file with figures before and after, curves and samples.

It is made from the run's folder alone, at any time: also while the run goes on, or after it was
killed. It needs no network and runs no script; whatever a model wrote is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomalyr1.reporting.charts import Chart, build_chart, write_number
from anomalyr1.reporting.comparison import compare_metrics, name_metric
from anomalyr1.reporting.page import build_page_environment, clean, write_page
from anomalyr1.reporting.training_log import Group, Stage, TrainingLog, load_training_log

MAX_SAMPLED_STEPS = 60
"""Steps whose completions are on the page; of more, evenly chosen ones, the last among them."""

STAGE_TITLES: dict[str, str] = {
    "see": "Learning to see (see)",
    "sft": "Supervised fine-tuning (sft)",
    "grpo": "Reinforcement learning (grpo)",
}


@dataclass(frozen=True, slots=True)
class Curve:
    """How a logged key is drawn: `low` and `high` are keys of its band, `spread` of a band of one
    standard deviation; `floor` and `ceiling` are always on the axis and bound the band. A curve
    that is not noisy is not smoothed."""

    key: str
    title: str
    unit: str
    spread: str = ""
    low: str = ""
    high: str = ""
    floor: float | None = None
    ceiling: float | None = None
    is_noisy: bool = True


CURVES: tuple[tuple[str, tuple[Curve, ...]], ...] = (
    ("Reward", (Curve("reward", "Reward, all terms", "reward", spread="reward_std"),)),
    (
        "Loss and policy",
        (
            Curve("loss", "Loss", "loss"),
            Curve("kind", "Loss of the defect's kind", "loss", floor=0.0),
            Curve("box", "Loss of the box", "loss", floor=0.0),
            Curve("place", "Loss of the place", "loss", floor=0.0),
            Curve("mean_token_accuracy", "Tokens predicted rightly", "share", ceiling=1.0),
            Curve("kl", "KL to the reference model", "nats", floor=0.0),
            Curve("entropy", "Entropy", "nats", floor=0.0),
        ),
    ),
    (
        "Completions",
        (
            Curve(
                "completions/mean_length",
                "Completion length",
                "tokens",
                low="completions/min_length",
                high="completions/max_length",
                floor=0.0,
            ),
            Curve("completions/clipped_ratio", "Cut at the length limit", "share", floor=0.0),
            Curve("frac_reward_zero_std", "Groups with equal rewards", "share", floor=0.0),
        ),
    ),
    ("Validation", ()),
    (
        "Optimiser",
        (
            Curve("learning_rate", "Learning rate", "rate", floor=0.0, is_noisy=False),
            Curve("grad_norm", "Gradient norm", "norm", floor=0.0),
            Curve("step_time", "Time per step", "seconds", floor=0.0),
        ),
    ),
)
"""What is drawn, by group; rewards by term and validation are found in the log."""

_BANDS = re.compile(r"reward_std|rewards/.*/std|completions/(min|max)_length")
_NOT_DRAWN = re.compile(
    r"epoch|total_flos|num_tokens|train_.*|eval_(runtime|.*_per_second|num_tokens)"
)


@dataclass(frozen=True, slots=True)
class StageCharts:
    """The charts of a stage by group, `rest` being all that was logged beside."""

    title: str
    num_resumed: int
    groups: tuple[tuple[str, tuple[Chart, ...]], ...]
    rest: tuple[Chart, ...]

    @property
    def has_bands(self) -> bool:
        """Whether any chart shows a band."""
        return any(chart.band for _, charts in self.groups for chart in charts)


def write_training_report(folder: Path) -> Path:
    """Write `folder`/report.html from what the run left there so far; returns its path.

    Only config.json has to be there. What is missing or cut off is named on the page. Raises
    InputError where config.json cannot be read or the page not be written; an older page is then
    left as it was.
    """
    log = load_training_log(folder)
    drawn = [stage for stage in log.stages if stage.steps]
    comparisons = compare_metrics(log.before or (), log.after or ())
    sampled = list(dict.fromkeys(group.step for group in log.groups))
    shown = _choose_evenly(sampled, MAX_SAMPLED_STEPS)
    environment = build_page_environment()
    environment.filters["number"] = write_number
    environment.filters["duration"] = write_duration
    path = folder / "report.html"
    parts = environment.get_template("training.html.j2").generate(
        log=log,
        name=clean(folder.resolve().name),
        description=clean(str(log.config.get("description") or "")),
        facts=_build_facts(log),
        stage_titles=STAGE_TITLES,
        current=drawn[-1] if drawn else (log.stages[0] if log.stages else None),
        seconds=sum(stage.seconds or 0.0 for stage in log.stages) or None,
        are_seconds_exact=all(stage.are_seconds_exact for stage in drawn) and log.is_finished,
        trend=_build_trend(drawn[-1]) if drawn else None,
        comparisons=comparisons,
        headline=next((row for row in comparisons if not row.lower_is_better), None),
        charts=[_build_stage_charts(stage) for stage in drawn],
        num_sampled=len(sampled),
        samples=[
            (step, [group for group in log.groups if group.step == step])
            for step in reversed(shown)
        ],
        is_flat=is_flat,
        tables=[
            ("Recipe", list(_flatten(log.config))),
            ("Environment", list(_flatten(log.environment))),
        ],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_page(path, parts)
    return path


def write_duration(seconds: float) -> str:
    """Seconds in the two largest units that fit.

    >>> [write_duration(seconds) for seconds in (8.24, 75.0, 4350.0, 190_000.0)]
    ['8.2 s', '1 min 15 s', '1 h 12 min', '2 d 4 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, name, small, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            return f"{int(seconds // size):,} {name} {int(seconds % size // small)} {small_name}"
    raise AssertionError("seconds of at least a minute have a unit")


def is_flat(group: Group) -> bool:
    """Whether all completions of a group were rewarded alike: nothing is learned from such."""
    rewards = {sample.reward for sample in group.samples}
    return len(group.samples) > 1 and len(rewards) == 1 and None not in rewards


def _build_stage_charts(stage: Stage) -> StageCharts:
    keys = stage.keys
    terms = [
        Curve(
            key,
            key.removeprefix("rewards/").removesuffix("/mean"),
            "reward",
            spread=key.removesuffix("mean") + "std",
            floor=0.0,
            ceiling=1.0,
        )
        for key in keys
        if key.startswith("rewards/") and key.endswith("/mean")
    ]
    judged = [
        Curve(key, name_metric(key.removeprefix("eval_")), "value")
        for key in keys
        if key.startswith("eval_") and not _NOT_DRAWN.fullmatch(key)
    ]
    found = {"Reward": terms, "Validation": judged}
    groups, seen = [], set()
    for title, curves in CURVES:
        wanted = [*curves, *found.get(title, [])]
        seen |= {curve.key for curve in wanted}
        charts = [chart for curve in wanted if (chart := _draw(stage, curve)) is not None]
        if charts:
            groups.append((title, tuple(charts)))
    rest = [
        Curve(key, key, "value")
        for key in keys
        if key not in seen and not _NOT_DRAWN.fullmatch(key) and not _BANDS.fullmatch(key)
    ]
    drawn = [chart for curve in rest if (chart := _draw(stage, curve)) is not None]
    title = STAGE_TITLES.get(stage.name, clean(stage.name))
    return StageCharts(title, stage.num_resumed, tuple(groups), tuple(drawn))


def _draw(stage: Stage, curve: Curve) -> Chart | None:
    steps, values = stage.collect(curve.key)
    if curve.spread:
        spreads = _align(stage, steps, curve.spread)
        lows = [_add(value, spread, -1) for value, spread in zip(values, spreads, strict=True)]
        highs = [_add(value, spread, 1) for value, spread in zip(values, spreads, strict=True)]
    else:
        lows, highs = _align(stage, steps, curve.low), _align(stage, steps, curve.high)
    return build_chart(
        clean(curve.title),
        curve.unit,
        steps,
        values,
        lows=lows,
        highs=highs,
        floor=curve.floor,
        ceiling=curve.ceiling,
        is_noisy=curve.is_noisy,
    )


def _align(stage: Stage, steps: Sequence[int], key: str) -> list[float | None]:
    """Values of another key at `steps`, None where it was not logged."""
    known = dict(zip(*stage.collect(key), strict=True)) if key else {}
    return [known.get(step) for step in steps]


def _add(value: float | None, spread: float | None, sign: int) -> float | None:
    return None if value is None or spread is None else value + sign * spread


def _build_trend(stage: Stage) -> tuple[str, float, float] | None:
    """What the last stage is about: its reward, else its loss, over the first and last tenth."""
    for key, title in (("reward", "Reward"), ("loss", "Loss"), ("kind", "Loss of the kind")):
        known = [value for value in stage.collect(key)[1] if value is not None]
        if known:
            count = max(1, len(known) // 10)
            return title, sum(known[:count]) / count, sum(known[-count:]) / count
    return None


def _build_facts(log: TrainingLog) -> list[tuple[str, str]]:
    facts = [("Model", log.config.get("model")), ("Seed", log.config.get("seed"))]
    rewards = log.config.get("reward_funcs")
    if isinstance(rewards, list) and rewards:
        facts.append(("Rewards", ", ".join(str(reward) for reward in rewards)))
    facts += [("Commit", log.environment.get("git")), ("Device", log.environment.get("device"))]
    return [(name, clean(str(value))) for name, value in facts if value is not None]


def _choose_evenly(steps: Sequence[int], count: int) -> list[int]:
    if len(steps) <= count:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as "table.key" and text, those without a value left out."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        elif value is not None:
            is_list = isinstance(value, list)
            text = ", ".join(str(item) for item in value) if is_list else str(value)
            yield clean(name), clean(text)
