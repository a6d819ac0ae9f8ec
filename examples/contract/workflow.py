"""The workflow: renders a contract into a blob and signs it with a key that nobody sees."""

import hashlib
import hmac

from pydantic import BaseModel

from polos import Blob, Secret, WorkflowContext, WorkflowState, workflow


class Contract(BaseModel):
    customer: str
    text: Blob
    signing_key: Secret[str]


class Signing(WorkflowState):
    signatures: dict[str, str] = {}
    session: Secret[str] | None = None


def open_session() -> Secret[str]:
    return Secret("session-of-the-signing-service")


@workflow(state_schema=Signing)
async def sign(ctx: WorkflowContext, contract: Contract) -> Blob:
    ctx.state.session = await ctx.step.run("session", open_session)

    async def render() -> Blob:
        digest = hmac.new(contract.signing_key.reveal().encode(), digestmod=hashlib.sha256)
        async for piece in contract.text.chunks():
            digest.update(piece)
        page = f"{contract.customer}\nsigned: {digest.hexdigest()}\n"
        return Blob.from_bytes(page.encode(), media_type="text/plain", name="signature.txt")

    page = await ctx.step.run("render", render)
    ctx.state.signatures[contract.customer] = page.hash
    await ctx.step.suspend("approve", {"customer": contract.customer})
    return page
