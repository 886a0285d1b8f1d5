"""Commands reach the main loop, are answered, and a flood of them is refused."""

from __future__ import annotations

import threading

import pytest

from netspot.commands import PENDING, CommandError, CommandQueue


def test_a_command_from_another_thread_is_answered_by_the_loop() -> None:
    queue = CommandQueue()
    answers: list[object] = []
    asked = threading.Event()

    def ask() -> None:
        reply = queue.put("relearn", {"stat": "R_SYN"})
        asked.set()
        answers.append(reply.result(5))

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(5)
    queue.serve({"relearn": lambda args: {"relearning": [args["stat"]]}})
    thread.join(5)
    assert answers == [{"relearning": ["R_SYN"]}]


def test_an_unknown_command_names_those_that_are_known() -> None:
    with pytest.raises(CommandError, match=r"unknown command 'reboot'.*relearn"):
        CommandQueue().put("reboot")


def test_a_flood_is_refused() -> None:
    queue = CommandQueue()
    for _ in range(PENDING):
        queue.put("health")
    with pytest.raises(CommandError, match="wait already"):
        queue.put("health")


def test_a_bug_in_a_handler_answers_and_does_not_end_the_loop() -> None:
    queue = CommandQueue()
    first, second = queue.put("health"), queue.put("stats")
    queue.serve({"health": lambda args: args["missing"], "stats": lambda args: {"good": True}})
    assert isinstance(first.exception(1), CommandError)
    assert second.result(1) == {"good": True}


def test_who_went_away_is_not_served() -> None:
    queue = CommandQueue()
    assert queue.put("stop").cancel()
    queue.serve({"stop": lambda args: pytest.fail("served")})
