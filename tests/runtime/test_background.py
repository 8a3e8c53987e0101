import threading

import pytest

from edgewren.background import in_background, one_by_one


def test_work_is_done_beside_the_caller_and_hands_over_its_result():
    caller = threading.get_ident()
    assert in_background(threading.get_ident).result() != caller


def test_an_error_reaches_whoever_asks_for_the_result():
    future = in_background(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        future.result()


def test_where_no_thread_can_start_the_work_is_done_at_once(monkeypatch):
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert in_background(threading.get_ident).result() == threading.get_ident()


def test_works_are_done_one_by_one_in_one_thread_and_an_error_ends_only_its_own():
    done: list[int] = []
    futures = one_by_one([lambda: done.append(1), lambda: 1 // 0, lambda: done.append(3), threading.get_ident])
    assert futures[3].result() != threading.get_ident()
    assert done == [1, 3]
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
