"""Products with their knowledge, threshold and reference pictures, in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from anomalyr1.server.store import Store, Upload, new_id, read_product
from anomalyr1.server.tables import pictures, product_references, products, write_time
from anomalyr1.types import InputError


def list_products(store: Store) -> list[dict[str, Any]]:
    """All products by name, as JSON values with their number of references."""
    query = (
        sa.select(products.c.id, products.c.name, sa.func.count(product_references.c.id))
        .outerjoin(product_references, product_references.c.product_id == products.c.id)
        .group_by(products.c.id, products.c.name)
        .order_by(products.c.name)
    )
    with store.database.read() as connection:
        return [
            {"id": row[0], "name": row[1], "num_references": row[2]}
            for row in connection.execute(query)
        ]


def create_product(store: Store, name: str, knowledge: str = "") -> int:
    """A new product's id. Raises InputError where the name is taken."""
    try:
        with store.database.write() as connection:
            made = connection.execute(
                sa.insert(products).values(name=name, knowledge=knowledge, created_at=write_time())
            )
            return new_id(made)
    except IntegrityError as error:
        raise InputError(f"a product is already called {name!r}: choose another name") from error


def change_product(store: Store, product_id: int, values: dict[str, Any]) -> None:
    """Set columns of a product. Raises LookupError, or InputError for a name that is taken."""
    try:
        with store.database.write() as connection:
            read_product(connection, product_id)
            if values:
                connection.execute(
                    sa.update(products).where(products.c.id == product_id).values(**values)
                )
    except IntegrityError as error:
        raise InputError("another product has this name: choose another") from error


def delete_product(store: Store, product_id: int) -> None:
    """Remove a product; its inspections stay, with its name."""
    with store.database.write() as connection:
        read_product(connection, product_id)
        connection.execute(sa.delete(products).where(products.c.id == product_id))


def load_product(store: Store, product_id: int) -> tuple[Any, list[Any]]:
    """A product's row, and its references' rows with their suffix. Raises LookupError."""
    query = (
        sa.select(product_references, pictures.c.suffix)
        .join(pictures, product_references.c.picture == pictures.c.sha256)
        .where(product_references.c.product_id == product_id)
        .order_by(product_references.c.id)
    )
    with store.database.read() as connection:
        product = read_product(connection, product_id)
        return product, list(connection.execute(query))


def add_reference(store: Store, product_id: int, upload: Upload) -> None:
    """Add a reference picture; one that is already there stays as it is."""
    with store.database.write() as connection:
        read_product(connection, product_id)
        present = sa.select(product_references.c.id).where(
            product_references.c.product_id == product_id,
            product_references.c.picture == upload.picture.sha256,
        )
        if connection.scalar(present) is None:
            connection.execute(
                sa.insert(product_references).values(
                    product_id=product_id,
                    picture=upload.picture.sha256,
                    name=upload.name,
                    created_at=write_time(),
                )
            )
            _forget_calibration(connection, product_id)


def remove_reference(store: Store, product_id: int, reference_id: int) -> None:
    """Take a reference from a product. Raises LookupError where it is not there."""
    with store.database.write() as connection:
        gone = connection.execute(
            sa.delete(product_references).where(
                product_references.c.id == reference_id,
                product_references.c.product_id == product_id,
            )
        )
        if gone.rowcount == 0:
            raise LookupError(f"no reference {reference_id} of product {product_id}")
        _forget_calibration(connection, product_id)


def keep_calibration(
    store: Store,
    product_id: int,
    reference_ids: Sequence[int],
    scores: Sequence[float],
    weights_sha256: str,
) -> None:
    """Keep what a product's references scored with the detector of these weights, unless it has
    others by now: those are to be scored anew. Raises LookupError."""
    query = (
        sa.select(product_references.c.id)
        .where(product_references.c.product_id == product_id)
        .order_by(product_references.c.id)
    )
    with store.database.write() as connection:
        read_product(connection, product_id)
        if list(connection.scalars(query)) == list(reference_ids):
            connection.execute(
                sa.update(products)
                .where(products.c.id == product_id)
                .values(
                    calibration=json.dumps(list(scores)),
                    calibration_weights_sha256=weights_sha256,
                )
            )


def _forget_calibration(connection: Connection, product_id: int) -> None:
    connection.execute(
        sa.update(products).where(products.c.id == product_id).values(calibration=None)
    )
