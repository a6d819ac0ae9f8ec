"""What a client does with blobs and with the files that carry executions to another store."""

from __future__ import annotations

import logging
from pathlib import Path, PurePath
from typing import Any, cast

from polos.core.blob import Blob, current_reader
from polos.core.model import Status
from polos.core.sealed import BLOB
from polos.engine import transfer
from polos.engine.transfer import Imported
from polos.errors import BlobNotFoundError, StoreReadOnlyError, UsageError

PAGE = 500
log = logging.getLogger("polos.client")


async def store_blob(node: Any, blob: Blob) -> Blob:
    """Store a blob, if it is not; returns the stored one."""
    if not isinstance(cast("Any", blob), Blob):
        raise UsageError(f"{blob!r:.80}: expected a Blob; make one with Blob.from_bytes(data)")
    if blob.content is not None:
        demand_writable(node)
        await node.engine.keep_blobs([blob.content], all=True)
    return _bound(node, blob.record())


async def get_blob(node: Any, blob: Blob | str | dict[str, Any]) -> Blob:
    """Return a stored blob that can be read."""
    if isinstance(blob, Blob):
        record = blob.record()
    elif isinstance(blob, str):
        record = {"hash": blob}
    else:
        given: dict[str, Any] = blob if isinstance(cast("Any", blob), dict) else {}
        inner = given.get(BLOB, given)
        record = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
    hash = record.get("hash")
    if not isinstance(hash, str):
        raise UsageError(f"{blob!r:.80}: expected a Blob, its hash, or its record")
    found = await node.engine.store.blob_size(hash)
    if found is None:
        raise BlobNotFoundError(hash)
    return _bound(node, {**record, "size": found.size})


def _bound(node: Any, record: dict[str, Any]) -> Blob:
    token = current_reader.set(node.engine)
    try:
        return Blob.from_record(record)
    finally:
        current_reader.reset(token)


async def export(node: Any, execution_id: str, path: str | PurePath) -> dict[str, Any]:
    """Write an execution with its tree to a file."""
    target = Path(path)
    if not target.parent.is_dir():
        raise UsageError(f"{target}: its folder does not exist; make {target.parent}")
    engine = node.engine
    record = await engine.require(execution_id)
    return await transfer.export_tree(engine.store, record, target, engine.clock.now())


async def restore(node: Any, path: str | PurePath, *, resume: bool | None) -> Imported:
    """Store the tree of a file, with `resume=None` as it was; returns what it was."""
    demand_writable(node)
    await node.runner.ensure()
    engine = node.engine
    done = await transfer.import_tree(engine.store, Path(path), engine.clock.now(), resume=resume)
    engine.ring()
    if done.renamed:
        log.info("%s: ids were taken, so it was imported as %s", path, done.id)
    return done


async def release(node: Any, execution_id: str) -> None:
    """Let all below a root go on that its import has parked with it."""
    record = await node.engine.require(execution_id)
    if record.id != record.root_id or not transfer.is_parked(record):
        return
    filters, before = {"root_id": record.id, "status": str(Status.WAITING)}, {}
    while page := await node.engine.listing({**filters, **before}, PAGE):
        for each in page:
            if each.id != record.id and transfer.is_parked(each):
                await node.engine.retry(each.id)
        before = {"before": page[-1].id}


def demand_writable(node: Any) -> None:
    """Raise if the store was opened to look."""
    if node.read_only:
        raise StoreReadOnlyError(
            "the store was opened with mode=ro, which only looks; open it without to store anything"
        )
