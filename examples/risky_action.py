"""Deletes files, if somebody allows it: ``delete a.txt b.txt``.

People see a card with the files and four options. Who allows may edit the list; "always" is remembered for this session;
after a minute without an answer nothing is deleted.
"""

from __future__ import annotations

from agent_worker.context import Agent, SessionContext
from agent_worker.tools import Invocation

FILES_SCHEMA = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
    "required": ["files"],
    "additionalProperties": False,
}


async def delete_files(call: Invocation) -> dict[str, object]:
    """Where your own code would delete; `call.idempotency_key` makes a repetition after a crash harmless."""
    return {"deleted": call.args["files"]}


async def answer(ctx: SessionContext) -> None:
    verb, *files = (ctx.input.content if ctx.input else "").split()
    if verb != "delete" or not files:
        await ctx.text("Say: delete FILE…")
        return
    decision = await ctx.approve(
        f"Delete {len(files)} file(s)?",
        details={"files": files},
        key="delete-files",
        expires_s=60,
        default="reject_once",
        response_schema=FILES_SCHEMA,
    )
    if not decision.allowed:
        await ctx.text("Nothing was deleted.")
        return
    args = decision.payload or {"files": files}
    result = await ctx.tool("delete_files", args, delete_files, idempotent=True)
    by = ", ".join(person.name or person.id for person in decision.by)
    answer = f"Deleted {', '.join(result['deleted'])}; allowed by {by}."
    await ctx.text(answer[len(ctx.said) :])  # after a crash, what nobody has seen yet


agent = Agent("risky-action", answer)
