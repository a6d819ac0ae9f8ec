"""What stored states say, for verbs that look inside of them, and states on their way back."""

from __future__ import annotations

from polos.core.model import Change, StateEntry
from polos.store.commands import apart
from polos.store.lining import Lining
from polos.store.postgres import blobs, queries
from polos.store.postgres.links import Link
from polos.store.protocol import VERSION_MAX


async def states(
    link: Link, lining: Lining, key: tuple[str, str], version: int = VERSION_MAX
) -> list[StateEntry]:
    """Read what the state of a version, or the last, is made of; as code has it."""
    found = await queries.states_up_to(link, *key, version)
    source = _Source(link)
    for each in found:
        await lining.load_entry(each, source)
    return found


async def text(link: Link, lining: Lining, stored: str) -> str:
    """Return a stored snapshot as code has it."""
    return await lining.load(stored, _Source(link))


async def line(link: Link, lining: Lining, change: Change) -> Change:
    """Return what is written of a change; what lies apart, and who refers to it, is written."""
    lined = lining.change(change)
    await blobs.write(link, apart([lined]))
    return lined


class _Source:
    """Chunks of blobs, read inside a transaction."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def blob_chunk(self, hash: str, number: int) -> bytes | None:
        return await blobs.read_chunk(self._link, hash, number)
