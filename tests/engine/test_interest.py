"""What processes tell each other of the trees that they follow."""

from polos.engine.interest import BELL, HEARD_SECONDS, TELL_SECONDS, TOLD_MAX, Interest


class Place:
    """A process with a clock that a test moves, and the bells that it rang."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rung: list[set[str]] = []
        self.interest = Interest(self.rung.append, lambda: self.now)


def test_others_are_told_at_once_and_then_now_and_again() -> None:
    place = Place()
    place.interest.tell("a")
    place.interest.tell("a")
    assert place.rung == [{BELL + "a"}]
    place.interest.tell("b")
    place.now = TELL_SECONDS
    place.interest.tell("a")
    assert place.rung == [{BELL + "a"}, {BELL + "b"}, {BELL + "a"}]


def test_a_name_that_a_bell_cannot_carry_is_left_to_polling() -> None:
    place = Place()
    for root_id in ("", "a,queue", "ü", "x" * 65):
        place.interest.tell(root_id)
    assert place.rung == []


def test_what_was_heard_is_new_once_and_forgotten_when_nobody_repeats_it() -> None:
    place = Place()
    assert place.interest.hear({"queue", BELL + "a"}) == ["a"]
    assert place.interest.hear({BELL + "a"}) == []
    place.now = HEARD_SECONDS
    assert place.interest.expire() == []
    assert place.interest.hear({BELL + "a"}) == []
    place.now = HEARD_SECONDS + 1
    assert place.interest.expire() == []
    place.now = 2 * HEARD_SECONDS + 1
    assert place.interest.expire() == ["a"]
    assert place.interest.hear({BELL + "a"}) == ["a"]


def test_what_was_told_long_ago_takes_no_room() -> None:
    place = Place()
    for n in range(TOLD_MAX + 1):
        place.interest.tell(f"r{n}")
    place.interest.tell("r0")
    assert place.rung[-1] == {BELL + "r0"}
    assert len(place.rung) == TOLD_MAX + 2
