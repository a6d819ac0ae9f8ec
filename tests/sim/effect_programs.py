"""Programs of hooks, sagas, guarded effects and long histories, to be crashed like the others."""

from __future__ import annotations

from collections.abc import Callable

from polos import HookContext, HookResult, WorkflowContext, workflow
from tests.sim.programs import Bodies, Program, Tally


def modifying_hooks() -> Program:
    """Hooks that change the payload, the output and the state."""
    bodies = Bodies()

    async def double(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_start.double.0")
        ctx.state.count += 1
        return HookResult.continue_with(modified_payload={"n": told.current_payload["n"] * 2})

    def sign(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_end.sign.0")
        ctx.state.notes.append(f"{told.current_payload} {told.current_output}")
        return HookResult.continue_with(modified_output={"signed": True})

    @workflow(id="modifying_hooks", state_schema=Tally, on_start=double, on_end=sign)
    async def code(ctx: WorkflowContext, payload: dict[str, int]) -> dict[str, int]:
        await ctx.step.run("s", bodies.changing(ctx, "s"))
        return payload

    return Program(code, bodies.effects, {"n": 2, "m": 1})


def refusing_hook() -> Program:
    """A hook that fails the execution."""
    bodies = Bodies()

    def refuse(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_end.refuse.0")
        return HookResult.fail("not like this")

    @workflow(id="refusing_hook", on_end=refuse)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", bodies.plain("s"))

    return Program(code, bodies.effects)


PROGRAMS: dict[str, Callable[[], Program]] = {
    make.__name__: make for make in (modifying_hooks, refusing_hook)
}
