"""The store keeps what it accepted, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from PIL import Image

from anomalyr1.server.database import MIGRATIONS, Database
from anomalyr1.server.maintenance import back_up_store, prune_store, verify_store
from anomalyr1.server.products import (
    add_reference,
    create_product,
    list_products,
    load_product,
    remove_reference,
)
from anomalyr1.server.promotions import current_model, load_promotions, promote, roll_back
from anomalyr1.server.reviews import add_review, retract_review
from anomalyr1.server.search import Filter, find_inspections
from anomalyr1.server.store import Store, Upload
from anomalyr1.server.tables import inspections, metadata, pictures
from anomalyr1.server.worker import calibrate
from anomalyr1.types import Anomaly, Defect, Finding, InputError


def picture_bytes(level: int = 100) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (32, 24), (level, level, 90)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def store(database_url: str | None, tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data", database_url)
    yield opened
    opened.close()


def accept(store: Store, count: int = 2, key: str | None = None) -> tuple[str, list[int]]:
    uploads = [
        store.receive(BytesIO(picture_bytes(number)), f"{number}.png") for number in range(count)
    ]
    job_id, tasks = store.accept(uploads, None, key)
    return job_id, [task.inspection_id for task in tasks]


def test_the_migrations_build_the_tables_that_the_code_uses(store: Store) -> None:
    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_store_of_the_first_version_is_brought_up_to_date_with_what_it_holds(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = sa.create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO products (name, knowledge, calibration, created_at) "
            "VALUES ('nut', '', '[0.1]', '2026')"
        )
    engine.dispose()
    opened = Store.open(tmp_path / "data", url)
    assert [product["name"] for product in list_products(opened)] == ["nut"]
    assert load_product(opened, 1)[0].calibration is None, "nobody knows which weights made it"
    with opened.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened.close()


def test_an_accepted_picture_waits_until_it_is_done_and_is_done_once(store: Store) -> None:
    _, (first, second) = accept(store)
    assert [task.inspection_id for task in store.load_waiting()] == [first, second]
    finding = Finding(str(first), "0.png", "normal", 0.1, 0.2)
    assert store.finish(first, finding)
    assert not store.finish(first, finding)
    assert [task.inspection_id for task in store.load_waiting()] == [second]


def test_the_same_request_key_makes_one_job(store: Store) -> None:
    job_id, _ = accept(store, key="again")
    assert accept(store, key="again") == (job_id, [])


def test_an_upload_that_is_no_picture_leaves_no_file(store: Store) -> None:
    for junk in (b"", b"not a picture", picture_bytes()[:40]):
        with pytest.raises(InputError, match=r"^bad\.png"):
            store.receive(BytesIO(junk), "bad.png")
    assert [path for path in store.folder.root.rglob("*") if path.is_file()] == []


def test_verify_names_a_missing_and_an_altered_file(store: Store) -> None:
    accept(store, 3)
    assert verify_store(store).problems == ()
    first, second, _ = store.folder.walk()
    first.unlink()
    second.write_bytes(b"other")
    problems = verify_store(store).problems
    assert len(problems) == 2
    assert any("has no file" in problem for problem in problems)


def test_prune_takes_old_files_without_a_row_and_keeps_young_ones(store: Store) -> None:
    accept(store, 1)
    loose = store.folder.keep(Image.new("L", (5, 5)))
    path = store.folder.find(loose.sha256, ".png")
    assert prune_store(store, days=None) == (0, 0)
    os.utime(path, (0, 0))
    assert verify_store(store).num_loose == 1
    assert prune_store(store, days=None) == (0, 1)
    assert verify_store(store).num_pictures == 1


def test_prune_leaves_an_old_picture_that_was_uploaded_again_to_who_is_about_to_name_it(
    store: Store,
) -> None:
    def receive() -> Upload:
        return store.receive(BytesIO(picture_bytes()), "a.png")

    first = receive()
    os.utime(store.folder.find(first.picture.sha256, first.picture.suffix), (0, 0))
    with store.database.write() as connection:
        connection.execute(sa.update(pictures).values(created_at="2020-01-01T00:00:00.000000Z"))
    again = receive()
    assert prune_store(store, days=None) == (0, 0)
    store.accept([again], None, None)
    assert verify_store(store).problems == ()


def test_verify_names_a_job_that_lost_a_picture_unless_it_was_pruned(store: Store) -> None:
    job_id, (first, second) = accept(store, 2)
    with store.database.write() as connection:
        connection.execute(sa.delete(inspections).where(inspections.c.id == second))
    assert verify_store(store).problems == (f"job {job_id} has 1 of 2 pictures",)
    store.finish(first, Finding(str(first), "0.png", "normal", 0.1, 0.2))
    set_times(store, {first: "2020-01-01T00:00:00.000000Z"})
    assert prune_store(store, days=1000)[0] == 1
    assert verify_store(store).problems == ()


def set_times(store: Store, times: dict[int, str]) -> None:
    with store.database.write() as connection:
        for number, time in times.items():
            connection.execute(
                sa.update(inspections).where(inspections.c.id == number).values(created_at=time)
            )


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("", "2026-01-31", [1]),
        ("2026-01-31", "2026-01-31", [1]),
        ("2026-02-01", "", [2, 3]),
        ("2026-01-31T23:59:59Z", "", [1, 2, 3]),
        ("2026-02-01T00:00:00.100Z", "2026-02-01T00:00:00.100Z", [2]),
        ("", "2026-02-01T00:00", [1, 2]),
        ("", "2026-02-01T09:30:00Z", [1, 2]),
        ("", "2026-02-01T09:30:01Z", [1, 2, 3]),
        ("2027-01-01", "", []),
    ],
)
def test_a_time_that_is_given_in_part_means_all_of_it(
    store: Store, since: str, until: str, found: list[int]
) -> None:
    _, numbers = accept(store, 3)
    times = ("2026-01-31T23:59:59.900000Z", "2026-02-01T00:00:00.100000Z")
    set_times(store, dict(zip(numbers, (*times, "2026-02-01T09:30:01.000000Z"), strict=True)))
    total, rows = find_inspections(store, Filter(since=since, until=until, sort="oldest"))
    assert [numbers.index(row.id) + 1 for row in rows] == found and total == len(found)


def test_a_reader_sees_one_state_while_others_write(store: Store) -> None:
    accept(store, 1)
    count = sa.select(sa.func.count(inspections.c.id))
    with store.database.read() as connection:
        assert connection.scalar(count) == 1
        accept(store, 1)
        assert connection.scalar(count) == 1


def test_what_has_no_score_comes_last(store: Store) -> None:
    _, numbers = accept(store, 4)
    for number, score in zip(numbers, (0.2, 0.9, None), strict=False):
        verdict = "unread" if score is None else "normal"
        store.finish(number, Finding(str(number), "0.png", verdict, score, None))
    _, rows = find_inspections(store, Filter(sort="score"))
    assert [row.id for row in rows][:2] == [numbers[1], numbers[0]]
    _, rows = find_inspections(store, Filter(sort="uncertain"))
    assert rows[-1].id == numbers[3], "what waits has no uncertainty yet"
    _, rows = find_inspections(store, Filter(sort="oldest"), page=2, page_size=3)
    assert [row.id for row in rows] == [numbers[3]]


def test_words_are_sought_in_what_was_said_and_in_nothing_else(store: Store) -> None:
    _, (first, second) = accept(store)
    defect = Defect("Kratzer, größer", "am Rand", (1.0, 2.0, 9.0, 9.0))
    said = Finding(str(first), "0.png", "anomalous", 0.9, 0.8, reasoning="A \x00dark line.")
    store.finish(first, replace(said, defects=(defect,)))
    store.finish(second, Finding(str(second), "1.png", "normal", 0.1, 0.1, reasoning="Even."))
    for words, ids in (
        ("größer", [first]),
        ("dark LINE", [first]),
        ("am rand", [first]),
        ("even", [second]),
        ("reasoning", []),
        ("defects", []),
        ("%", []),
        (".png", [first, second]),
    ):
        _, rows = find_inspections(store, Filter(words=words, sort="oldest"))
        assert [row.id for row in rows] == ids, words


def test_inspections_of_an_older_store_are_found_by_their_words(tmp_path: Path) -> None:
    opened = Store.open(tmp_path)
    _, (first, _) = accept(opened)
    finding = Finding(str(first), "0.png", "anomalous", 0.9, 0.8, reasoning="Rust.")
    opened.finish(first, finding)
    with opened.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE inspections DROP COLUMN words")
        connection.exec_driver_sql("ALTER TABLE products DROP COLUMN calibration_weights_sha256")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    opened.close()
    again = Store.open(tmp_path)
    _, rows = find_inspections(again, Filter(words="rust"))
    assert [row.id for row in rows] == [first]
    again.close()


def test_a_backup_is_a_store_that_verifies(store: Store, tmp_path: Path) -> None:
    accept(store, 2)
    if not store.database.is_sqlite:
        with pytest.raises(InputError, match=f"pg_dump, then copy {store.folder.root}"):
            back_up_store(store, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        return
    assert back_up_store(store, tmp_path / "copy") == 2
    copy = Store.open(tmp_path / "copy")
    assert verify_store(copy).problems == ()
    assert len(copy.load_waiting()) == 2
    copy.close()


def test_a_retracted_review_stays_with_who_and_when(store: Store) -> None:
    _, (first, _) = accept(store)
    review = add_review(store, first, "Ann", "anomalous", [], "")
    retract_review(store, review, "Ben")
    with pytest.raises(LookupError):
        retract_review(store, review, "Ben")


def test_rolling_back_returns_to_the_model_before_and_again_to_the_one_before_it(
    store: Store,
) -> None:
    with pytest.raises(InputError, match="nothing was promoted"):
        roll_back(store, "Ann")
    promote(store, "runs/a", "Ann")
    promote(store, "runs/b", "Ann")
    assert roll_back(store, "Ben") == "runs/a"
    assert current_model(store) == "runs/a"
    assert [row.person for row in load_promotions(store)] == ["Ann", "Ann", "Ben"]
    promote(store, "runs/c", "Ann")
    assert [roll_back(store, "Ben") for _ in range(2)] == ["runs/a", "nano"]
    with pytest.raises(InputError, match="no earlier model"):
        roll_back(store, "Ben")


@pytest.mark.parametrize("are_left_alone", [True, False])
def test_scores_of_references_that_are_others_by_now_are_not_kept(
    store: Store, are_left_alone: bool
) -> None:
    product = create_product(store, "nut")
    for level in (90, 100, 110):
        upload = store.receive(BytesIO(picture_bytes(level)), "a.png")
        add_reference(store, product, upload)
    _, (first, *_others) = load_product(store, product)

    class Detector:
        weights_sha256 = ""

        def detect(self, picture: object, others: object) -> Anomaly:
            if not are_left_alone and len(load_product(store, product)[1]) == 3:
                remove_reference(store, product, first.id)
            return Anomaly(np.zeros((4, 4), np.float32), 0.25)

    calibrate(store, product, Detector())  # type: ignore[arg-type]
    row, _ = load_product(store, product)
    assert row.calibration == ("[0.25, 0.25, 0.25]" if are_left_alone else None)


def test_a_second_server_on_one_store_is_refused(store: Store, tmp_path: Path) -> None:
    store.claim()
    second = Store.open(tmp_path / "data")
    with pytest.raises(InputError, match="another server"):
        second.claim()
    second.close()


@pytest.mark.parametrize("url", ["mysql://a/b", "sqlite://", "nonsense", "postgresql://u:pw@"])
def test_a_database_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as refused:
        Database.open(url if url != "postgresql://u:pw@" else "postgresql://u:pw@127.0.0.1:1/x")
    assert "pw" not in str(refused.value)
