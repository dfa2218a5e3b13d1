import pytest

from lsce.machine import progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (91, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")],
)
def test_durations_in_words(seconds, words):
    assert progress.duration(seconds) == words


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = progress.Progress("training", total=100.0, runs=4)
    for second in range(1, 81):
        now[0] = second
        shown.advance(0.5, finished=second % 40 == 0)
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    # 30 s for 15% of the work leaves 170 s; 60 s for 30% leaves 140 s.
    assert lines == [
        "training: 15%, 0 of 4 runs done, 3 min left",
        "training: 30%, 1 of 4 runs done, 2 min left",
    ]
