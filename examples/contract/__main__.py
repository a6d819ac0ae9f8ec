"""Signs a contract in one store, carries it to another in the middle, and ends it there."""

import asyncio
import sys
import tempfile
from pathlib import Path

from examples.contract.workflow import Contract, sign
from polos import Blob, PolosClient, Secret, events
from polos.codecs import EncryptionCodec, generate_key


async def main(folder: Path) -> None:
    codec = EncryptionCodec(generate_key())  # in real life: POLOS_ENCRYPTION_KEY, from a vault
    text = folder / "contract.txt"
    text.write_text("The parties agree.\n" * 100_000)
    carried = folder / "contract.polos"
    async with PolosClient(f"sqlite:///{folder}/here.db", codec=codec) as here:
        stored = await here.store_blob(Blob.from_path(text))
        contract = Contract(customer="Ann", text=stored, signing_key=Secret("k-2026"))
        handle = await sign.invoke(here, contract)
        async for event in events.stream_workflow(here, "sign", handle.id, 0):
            if event.event_type == "suspend_approve":
                break
        shown = await here.get_execution(handle.id)
        print("key     ", shown["payload"]["signing_key"])
        print("session ", shown["state"]["session"])
        await here.export_execution(handle.id, carried)
        await here.cancel_execution(handle.id)
    print("carried ", f"{carried.stat().st_size:,} bytes")
    async with PolosClient(f"sqlite:///{folder}/there.db", codec=codec) as there:
        handle = await there.import_execution(carried, resume=True)
        await there.resume("sign", handle.id, "approve", {"by": "Ben"})
        page = await handle.result()
        print("result  ", (await page.read()).decode().strip().replace("\n", ", "))


def is_in_clear(folder: Path) -> bool:
    raw = b"".join(path.read_bytes() for path in folder.glob("*.db*") if path.is_file())
    return b"k-2026" in raw or b"The parties agree" in raw


def run(folder: Path) -> None:
    asyncio.run(main(folder))
    print("in clear", is_in_clear(folder))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        run(Path(sys.argv[1] if len(sys.argv) > 1 else name))
