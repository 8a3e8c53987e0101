import threading

import pytest

from edgewren.background import in_background


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
