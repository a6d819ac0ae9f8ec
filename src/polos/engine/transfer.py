"""Carrying a tree of executions to another store, and putting all values under another key."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polos._version import __version__
from polos.core import ids, suspension
from polos.core.model import TERMINAL, Execution, Kind, Status, WorkerRecord
from polos.engine import incoming
from polos.engine.archive import Reader, Writer
from polos.errors import BlobNotFoundError, ConflictError, ImportFileError
from polos.store.lining import SEALED_COLUMNS, Lining, refs_of
from polos.store.protocol import Store
from polos.store.trees import TABLES, Rewrite

IMPORTED = "imported, not resumed"
"""Begins the reason that an execution is parked with that was imported to be looked at."""
_UUID = re.compile(ids.FORM)
_INVOKES = (Kind.INVOKE, Kind.BATCH_INVOKE)
_ANSWERS = (Kind.SUSPEND, suspension.ITEM, suspension.EARLY)
_ITEMS = ("event",)
"""Inbox items with events, whose data stay in clear."""
_PAGE = 500
_CHUNKS = 8


@dataclass(slots=True)
class Imported:
    """What came out of a file."""

    id: str
    """The execution that was exported, under the id that it has here."""
    root_id: str
    executions: int
    blobs: int
    renamed: dict[str, str] = field(default_factory=dict[str, str])
    """New ids by old ones, if the old ones were taken."""
    code_versions: dict[str, str | None] = field(default_factory=dict[str, str | None])


async def export_tree(store: Store, execution: Execution, path: Path, now: int) -> dict[str, Any]:
    """Write the tree of an execution to a file, values as they are stored; returns the manifest.

    What is encrypted stays encrypted: whoever imports it needs the key.
    """
    tables = await store.dump_tree(execution.root_id)
    hashes = {row["hash"] for row in tables["blob_ref"]}
    for table, (_, columns) in SEALED_COLUMNS.items():
        for row in tables.get(table, ()):
            hashes |= refs_of([row.get(name) for name in columns if name not in ("ok", "kind")])
    sizes = {hash: found.size for hash in hashes if (found := await store.blob_size(hash))}
    facts = {
        "blob_sizes": sizes,
        "polos": __version__,
        "execution_id": execution.id,
        "root_id": execution.root_id,
        "exported_at": datetime.fromtimestamp(now / 1e6, UTC).isoformat(),
        "encrypted": store.lining.codec is not None,
        "code_versions": {row["workflow_id"]: row["code_version"] for row in tables["execution"]},
    }
    with Writer(path) as file:
        for table in TABLES:
            lines = [json.dumps(row, ensure_ascii=False) for row in tables[table]]
            file.add(f"{table}.jsonl", "".join(f"{line}\n" for line in lines).encode())
        for hash in sorted(hashes):
            number = 0
            while (chunk := await store.blob_chunk(hash, number)) is not None:
                file.add(f"blobs/{hash}/{number}", chunk)
                number += 1
        file.finish(facts)
    return facts


async def import_tree(store: Store, path: Path, now: int, *, resume: bool | None) -> Imported:
    """Store the tree of a file; `ImportFileError` if it is not what was exported.

    Ids stay, or are new if one of them is taken. What has not ended is queued with `resume`, else
    parked with a reason until it is retried. None leaves it as it was, for a store that only shows.
    `EncryptionKeyError` if it is encrypted with a key that this store's codec does not have.
    """
    with Reader(path) as file:
        tables = {table: file.rows(table) for table in TABLES}
        root_id, execution_id = incoming.check(file.manifest, tables, path)
        blobs = file.blobs()
        if resume is not None and store.lining.codec is not None:
            for row in tables["execution"]:  # it would be stored, and nobody here could read it
                store.lining.open(row["payload"] or "")
        for hash in blobs:
            await _import_blob(store, file, hash, now, checked=resume is not None)
    if resume is not None:
        carrier = await _register_carrier(store, now)
        for row in tables["execution"]:
            _restart(row, carrier, now, resume=resume)
    done = Imported(execution_id, root_id, len(tables["execution"]), len(blobs))
    done.code_versions = {row["workflow_id"]: row["code_version"] for row in tables["execution"]}
    needed = sorted({row["hash"] for row in tables["blob_ref"]})
    taken = await store.restore_tree(tables, needed)
    if taken:
        _refuse_missing(taken, needed)
        olds = sorted(row["id"] for row in tables["execution"])
        done.renamed = {old: ids.new_id(now + n) for n, old in enumerate(olds)}
        await _unspill_handles(store, tables)
        _rename(tables, done.renamed, store.lining)
        done.id, done.root_id = done.renamed[execution_id], done.renamed[root_id]
        taken = await store.restore_tree(tables, needed)
        _refuse_missing(taken, needed)
        if taken:
            raise ConflictError(f"{path}: new ids are taken as well ({taken[0]}); try again")
    return done


def _refuse_missing(taken: Iterable[str], needed: Iterable[str]) -> None:
    for hash in set(needed) & set(taken):
        raise BlobNotFoundError(hash)


async def _import_blob(store: Store, file: Reader, hash: str, now: int, *, checked: bool) -> None:
    size: Any = file.manifest.get("blob_sizes", {}).get(hash)
    if type(size) is not int or size < 0:
        raise ImportFileError(f"{file.path}: its manifest does not know blob {hash[:16]}…")
    # Before a chunk of it is stored; for a store that only shows, reading it does.
    if checked and not _is_right(store.lining, file, hash, size):
        raise ImportFileError(f"{file.path}: blob {hash[:16]}… holds something else; not imported")
    if not await store.blob_begin(hash, size, now):
        return
    count = 0
    for chunk in file.chunks(hash):
        await store.blob_put(hash, count, chunk)
        count += 1
    await store.blob_finish(hash, size, count, now)


def _is_right(lining: Lining, file: Reader, hash: str, size: int) -> bool:
    """Say whether a blob holds what its name says; without any key that is not to be known."""
    digest, left = hashlib.sha256(), size
    for chunk in file.chunks(hash):
        if lining.codec is None and not lining.is_clear(chunk):
            return True
        opened = lining.open_chunk(chunk)
        digest.update(opened)
        left -= len(opened)
    return left == 0 and digest.hexdigest() == hash


def is_parked(record: Execution) -> bool:
    """Say whether an import has parked an execution, and nobody has released it since."""
    return (record.blocked_reason or "").startswith(IMPORTED)


async def _register_carrier(store: Store, now: int) -> str:
    """Return the id of a worker that is gone: what it owned is taken by whoever has the code."""
    carrier = ids.new_id(now)
    await store.register_worker(
        WorkerRecord(carrier, "polos import", 0, now, None, takes_queue=False, workflows="[]")
    )
    await store.stop_worker(carrier, now, crashed=False)
    return carrier


def _restart(row: dict[str, Any], carrier: str, now: int, *, resume: bool) -> None:
    """Make an execution nobody's; what has not ended goes on, or waits to be retried."""
    row["worker_id"] = carrier
    if row["status"] in TERMINAL:
        return
    row["attempt"] += 1
    if not resume:
        reason = f"{IMPORTED}; polos retry {row['id']} lets it go on"
        row |= {"status": str(Status.WAITING), "wake_at": None, "blocked_reason": reason}
    elif row["status"] in (Status.RUNNING, Status.QUEUED):
        row |= {"status": str(Status.QUEUED), "wake_at": now}
    elif str(row.get("blocked_reason") or "").startswith(IMPORTED):
        row |= {"status": str(Status.QUEUED), "wake_at": now, "blocked_reason": None}


async def _unspill_handles(store: Store, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Put the handles of very many children where `_rename` finds them."""
    for table in ("step", "cut_step"):
        for row in tables[table]:
            if row["kind"] in _INVOKES and row["body"] is not None and row["ok"]:
                row["body"] = store.lining.seal(await store.lining.load(row["body"], store))


def _rename(
    tables: Mapping[str, list[dict[str, Any]]], renamed: Mapping[str, str], lining: Lining
) -> None:
    """Give executions other ids, everywhere the runtime looks for them; values keep what they say.

    Idempotency keys go: they belong to the executions that have the old ids.
    """

    def replaced(text: str) -> str:
        found = _UUID.sub(lambda match: renamed.get(match[0], match[0]), lining.open(text))
        return text if found == text else lining.seal(found)

    for table, rows in tables.items():
        for row in rows:
            for name in ("root_id", "execution_id", "id", "parent_id", "ref"):
                if row.get(name) in renamed:
                    row[name] = renamed[row[name]]
            if table == "execution":
                row["idempotency_key"] = None
                reason = row["blocked_reason"]
                if reason is not None and reason.startswith(IMPORTED):
                    row["blocked_reason"] = replaced(reason)
            elif table in ("step", "cut_step"):
                if row["info"] is not None:
                    row["info"] = _UUID.sub(
                        lambda match: renamed.get(match[0], match[0]), row["info"]
                    )
                if row["kind"] in _INVOKES and row["body"] is not None and row["ok"]:
                    row["body"] = replaced(row["body"])


# -- keys -----------------------------------------------------------------------------------------


async def rekey(store: Store, progressed: Any = None) -> int:
    """Put every stored value under the first key of the codec, page by page; returns how many.

    Beside running executions: a value that changed meanwhile was written under that key anyway.
    """
    count = 0
    for table, (key, columns) in SEALED_COLUMNS.items():
        after: tuple[Any, ...] | None = None
        limit = _CHUNKS if table == "blob_chunk" else _PAGE
        while page := await store.sealed_page(table, after, limit):
            rewrites = [
                Rewrite(row[: len(key)], name, old, new)
                for row in page
                for name, old, new in _resealed(store.lining, columns, row[len(key) :])
            ]
            if rewrites:
                count += await store.rewrite(table, rewrites)
            after = page[-1][: len(key)]
            if progressed is not None:
                progressed(len(page))
    return count


def _resealed(
    lining: Lining, columns: tuple[str, ...], values: tuple[Any, ...]
) -> Iterable[tuple[str, Any, Any]]:
    row = dict(zip(columns, values, strict=True))
    failed, kind = row.pop("ok", None) in (False, 0), row.pop("kind", None)
    for name, value in row.items():
        if value is None:
            continue
        if isinstance(value, bytes):
            new: Any = lining.resealed_chunk(value)
        elif lining.stays_clear(name, value):
            continue
        elif name == "data" or (kind in _ITEMS and name == "body"):
            new = lining.resealed_pieces(value)
        elif kind in _ANSWERS and name == "body" and not failed:
            new = lining.resealed_answer(value)
        else:
            is_failure = name == "error" or (failed and name == "body")
            new = lining.resealed(value, failed=is_failure)
        if new is not None:
            yield name, value, new
