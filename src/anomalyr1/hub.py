"""Puts a checkpoint on a model hub, with a card filled in from the run that made it.

Every figure of the card comes from a file of the run or of an evaluation; where there is none, the
card says so. Only safetensors, ONNX and plain texts travel; paths of the machine stay behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from anomalyr1.checkpoint import resolve_source
from anomalyr1.reporting.run_files import read_json, read_number
from anomalyr1.reporting.training_log import Stage, TrainingLog, load_training_log
from anomalyr1.types import InputError, Metric

SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt", ".onnx", ".model"})
"""Files of a checkpoint that travel; no pickle among them."""

CARD_FILE = "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of one evaluation: what was measured with, and the metrics over all its pictures."""

    settings: Mapping[str, Any]
    metrics: tuple[Metric, ...]


def find_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run folder, or the folder where it is one itself. Raises InputError for a
    folder that holds none, or whose weights are pickled."""
    inside = folder / "checkpoint"
    found = inside if inside.is_dir() else folder
    if not found.is_dir():
        raise InputError(f"{folder}: no such folder; give a run's folder or a checkpoint")
    resolve_source(str(found))
    return found


def list_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that travel, relative to it, sorted; the detector's in `hint/`
    too."""
    files = [
        path.relative_to(checkpoint)
        for path in checkpoint.rglob("*")
        if path.is_file() and path.suffix in SUFFIXES
    ]
    return sorted(path for path in files if not any(part[0] == "." for part in path.parts))


def load_evaluation(folder: Path) -> Evaluation:
    """The metrics.json of an evaluation's folder. Raises InputError where it cannot be read."""
    path = folder / "metrics.json"
    document, problem = read_json(path)
    try:
        metrics = tuple(
            Metric(
                str(row["name"]),
                str(row["subset"]),
                read_number(row["value"]),
                int(row["n"]),
                int(row["n_unreadable"]),
                read_number(row["ci_low"]),
                read_number(row["ci_high"]),
            )
            for row in document["metrics"]
            if row["subset"] == "all"
        )
        settings = dict(document["settings"])
    except (KeyError, TypeError, ValueError) as error:
        reason = problem or f"holds no metrics ({error})"
        raise InputError(
            f"{path} {reason}: give the --out folder of anomalyr1 evaluate records"
        ) from error
    return Evaluation(settings, metrics)


def build_card(
    run: Path, repository: str, licence: str, evaluations: Sequence[Evaluation] = ()
) -> str:
    """The model card: front matter for the hub, use, training, figures, limits.

    `run` is a run's folder, or a checkpoint alone, whose training the card then calls unknown.
    """
    has_log = (run / "checkpoint").is_dir() and (run / "config.json").is_file()
    log = load_training_log(run) if has_log else None
    config: Mapping[str, Any] = {} if log is None else log.config
    parts = [
        _write_head(config, licence),
        f"# {repository.rpartition('/')[2]}\n",
        "A Qwen-VL checkpoint for explained visual inspection with AnomalyR1: a verdict, the "
        "reasoning, and a box for each defect.\n",
        _write_use(repository),
        "## Training\n",
        "The run's folder did not come along: how it was trained is not known here.\n"
        if log is None
        else _write_training(log),
        "## Figures\n",
        _write_figures(log, evaluations),
        "## Limits\n",
        "Not for use where a missed defect endangers people without a person or another check "
        "behind it. Figures hold for the pictures they were measured on; measure on your own parts "
        "with `anomalyr1 evaluate records`.\n",
    ]
    return "\n".join(parts)


def push(
    checkpoint: Path,
    repository: str,
    card: str,
    *,
    private: bool = False,
    endpoint: str | None = None,
) -> str:
    """Create the repository where it is missing and commit checkpoint and card at once; the URL of
    the commit.

    `endpoint` None: HF_ENDPOINT or the public hub; the token is HF_TOKEN's or that of `hf auth
    login`. Raises InputError where the hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    operations = [
        CommitOperationAdd(path.as_posix(), str(checkpoint / path))
        for path in list_files(checkpoint)
    ]
    operations.append(CommitOperationAdd(CARD_FILE, card.encode("utf-8", "replace")))
    api = HfApi(endpoint=endpoint, library_name="anomalyr1")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message="Checkpoint with its card")
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no name of a repository: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "set HF_TOKEN to one that may write" if status in (401, 403) else "try again"
        raise InputError(f"the hub refuses {repository} (HTTP {status}): {remedy}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the hub cannot be reached for {repository}: {error}") from error
    return str(done.commit_url)


def _write_head(config: Mapping[str, Any], licence: str) -> str:
    lines = [
        "---",
        f"license: {json.dumps(licence)}",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "tags: [anomaly-detection, visual-inspection, anomalyr1]",
    ]
    base = config.get("model")
    if isinstance(base, str) and _HUB_ID.fullmatch(base) and not Path(base).exists():
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "---", ""])


def _write_use(repository: str) -> str:
    return (
        "## Use\n\n"
        f"    anomalyr1 inspect photos/ --model {repository} --out results\n\n"
        "or in plain transformers:\n\n"
        "```python\n"
        "from transformers import AutoModelForImageTextToText, AutoTokenizer\n\n"
        f'model = AutoModelForImageTextToText.from_pretrained("{repository}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}")\n'
        "```\n"
    )


def _write_training(log: TrainingLog) -> str:
    rows = ["| stage | steps | seconds | last loss |", "|---|---|---|---|"]
    rows += [_write_stage(stage) for stage in log.stages]
    packages = {
        **log.environment.get("packages", {}),
        **log.environment.get("training_packages", {}),
    }
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    recipe = json.dumps(_hide_paths(log.config), indent=2, ensure_ascii=True)
    told = "" if log.is_finished else "**The run had not ended when this was written.**\n\n"
    return (
        f"{told}" + "\n".join(rows) + "\n\n"
        f"On: {log.environment.get('device', 'not known')}; "
        f"processes: {log.environment.get('processes', 'not known')}; "
        f"commit: {log.environment.get('git') or 'not known'}. {versions}.\n\n"
        f"The recipe, paths shortened to their names:\n\n```json\n{recipe}\n```\n"
    )


def _write_stage(stage: Stage) -> str:
    _, losses = stage.collect("loss")
    loss = next((value for value in reversed(losses) if value is not None), None)
    seconds = "not known" if stage.seconds is None else f"{stage.seconds:.0f}"
    return f"| {stage.name} | {stage.last_step} | {seconds} | {_write_number(loss)} |"


def _write_figures(log: TrainingLog | None, evaluations: Sequence[Evaluation]) -> str:
    parts = []
    if log is not None and log.after is not None:
        parts.append(
            "On the run's own validation records, at its end:\n\n" + _write_table(log.after)
        )
    for evaluation in evaluations:
        records = PurePath(str(evaluation.settings.get("records", "not known"))).name
        rest = {
            name: evaluation.settings.get(name)
            for name in ("hint", "masks", "max_references", "limit", "seed")
        }
        told = ", ".join(f"{name} {value}" for name, value in rest.items())
        parts.append(f"On `{records}` ({told}):\n\n" + _write_table(evaluation.metrics))
    return "\n".join(parts) if parts else "None were measured for this card.\n"


def _write_table(metrics: Sequence[Metric]) -> str:
    rows = ["| metric | value | 95 % interval | n | unread |", "|---|---|---|---|---|"]
    for metric in metrics:
        if metric.value is None:
            continue
        low, high = _write_number(metric.ci_low), _write_number(metric.ci_high)
        rows.append(
            f"| {metric.name} | {_write_number(metric.value)} | {low} to {high} | {metric.n} | "
            f"{metric.n_unreadable} |"
        )
    return "\n".join(rows) + "\n"


def _write_number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _hide_paths(value: Any) -> Any:
    """The value with absolute paths, which name a person's folders, cut to their last part."""
    if isinstance(value, str):
        return PurePath(value).name if value.startswith(("/", "~")) else value
    if isinstance(value, list):
        return [_hide_paths(item) for item in value]
    if isinstance(value, dict):
        return {name: _hide_paths(item) for name, item in value.items()}
    return value
