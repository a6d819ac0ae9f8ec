"""A story, written word by word by something that fails in the middle of its first try."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from pydantic import BaseModel

from polos import WorkflowContext, workflow

STORY = (
    "A durable program went to sleep at noon. Somebody pulled the plug. It woke up in another "
    "room, found its notes in order, and went on in the middle of a sentence."
)


class Settings:
    """What the command line sets."""

    seconds_per_word = 0.05
    fails = True


settings = Settings()


class Progress(BaseModel):
    """How far the execution is."""

    done: str


async def write() -> AsyncIterator[str]:
    """Yield the story as a language model would; fail once on the way."""
    for number, word in enumerate(STORY.split(" ")):
        if number == 8 and settings.fails:
            settings.fails = False
            raise ConnectionError("the model hung up")
        await asyncio.sleep(settings.seconds_per_word)
        yield f"{word} "


def count_letters(story: str) -> Iterator[dict[str, int]]:
    """Yield how often each letter is there; a plain generator runs in a thread."""
    letters = [letter for letter in story.lower() if letter.isalpha()]
    for letter in sorted(set(letters)):
        yield {letter: letters.count(letter)}


@workflow
async def tell(ctx: WorkflowContext) -> int:
    """Write the story and count its letters."""
    story = await ctx.step.stream("story", write, collect="".join, base_delay=0.2)
    ctx.emit(Progress(done="story"))
    counts = await ctx.step.stream("letters", count_letters, story)
    ctx.emit(Progress(done="letters"))
    return len(counts)
