"""anomalyr1 demo: inspects drawn parts and photographed materials with seeded defects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, out
from anomalyr1.cli.inspect import build_table, choose_exit_code, run_inspection
from anomalyr1.types import InputError, Record

# The bundled model learned from the same generator and from crops of the same photographs.
_CAVEAT = (
    "This shows how it works, not how well: the parts come from the generator that nano was "
    "trained with (other seeds), the materials from photographs that it was trained on."
)


def demo(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path(
        "demo"
    ),
    num_products: Annotated[int, typer.Option("--products", min=1, help="Of each source.")] = 3,
    seed: Annotated[int, typer.Option(help="Which parts and defects.")] = 5,
) -> None:
    """Make pictures with seeded defects, inspect them with the bundled model, write a report.

    Example: anomalyr1 demo --out demo
    """
    from anomalyr1.inspector import Inspector
    from anomalyr1.models import describe_weights
    from anomalyr1.reporting.inspection import write_report

    records = make_demo_records(out_dir / "pictures", num_products, seed)
    with err.status("loading nano"):
        inspector = Inspector.load("nano")
    settings: dict[str, object] = {
        "command": "demo",
        "model": "nano",
        "products": num_products,
        "seed": seed,
    } | describe_weights("nano", inspector=inspector)
    results = run_inspection(inspector, records, out_dir, settings, 8, seed)
    findings = list(follow(results, "inspecting", len(records)))
    out.print(build_table(findings, [describe_truth(record) for record in records]))
    right = sum(
        finding.verdict == record.label for finding, record in zip(findings, records, strict=True)
    )
    out.print(f"{right} of {len(records)} verdicts agree with the truth.", highlight=False)
    out.print(_CAVEAT, highlight=False)
    report = write_report(out_dir, findings, settings)
    out.print(f"report: {report}", highlight=False, soft_wrap=True)
    raise typer.Exit(choose_exit_code(findings, fail_on_anomaly=False))


def describe_truth(record: Record) -> str:
    """The label, with the kinds of defect that were painted."""
    kinds = dict.fromkeys(region.defect_type for region in record.regions)
    return f"{record.label}: {', '.join(kinds)}" if kinds else str(record.label)


def make_demo_records(folder: Path, num_products: int, seed: int) -> list[Record]:
    """Records of drawn parts and of crops of scikit-image's photographs, two pictures a product."""
    from anomalyr1.data.synthesis import Synthesis, synthesize

    materials = write_materials(folder / "materials")
    drawn = Synthesis(
        folder / "drawn",
        num_products,
        num_queries=2,
        seed=seed,
        categories=("screw", "circuit_board", "ground_metal_tile", "nut_kernel", "wood"),
    )
    cut = Synthesis(folder / "cut", num_products, num_queries=2, seed=seed, material=materials)
    records = [
        record for plan in (drawn, cut) for product in synthesize(plan) for record in product
    ]
    return [
        replace(record, record_id=f"{record.category}-{number}")
        for number, record in enumerate(records)
    ]


def write_materials(folder: Path) -> Path:
    """Write photographs of materials that the wheel of scikit-image holds."""
    try:
        from skimage import data
    except ImportError as error:
        raise InputError(
            "the demo takes its photographs from scikit-image: pip install 'anomalyr1[demo]'"
        ) from error
    from anomalyr1.images import write_png_atomic

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("brick", "grass", "gravel"):
        write_png_atomic(folder / f"{name}.png", getattr(data, name)())
    return folder
