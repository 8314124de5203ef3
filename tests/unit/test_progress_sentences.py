"""Progress is one sentence that people and the command line both read."""

import pytest

from ml_platform.contracts.progress import Progress, silent


@pytest.mark.parametrize(
    ("progress", "sentence"),
    [
        (Progress("snapshot", 0.0), "snapshot 0 %"),
        (
            Progress("train", 0.429, "loss 0.412, 640 tokens/s", 80.4),
            "train 42 % · loss 0.412, 640 tokens/s · 1:20 left",
        ),
        (Progress("evaluate candidate", 0.5, "16 of 32"), "evaluate candidate 50 % · 16 of 32"),
        (Progress("latency", 1.0, seconds_left=0), "latency 100 % · 0:00 left"),
        (Progress("train", 0.999), "train 99 %"),
        (Progress("train", 0.1, seconds_left=3725), "train 10 % · 62:05 left"),
        (Progress("train", 0.1, seconds_left=-3), "train 10 % · 0:00 left"),
    ],
)
def test_progress_is_told_in_a_sentence(progress: Progress, sentence: str) -> None:
    assert progress.sentence() == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "snapshot 0 %",
        "train 42 % · loss 0.412, 640 tokens/s · 1:20 left",
        "evaluate candidate 50 % · 16 of 32",
        "training set 100 % · 16 test · 56 train, no leakage found",
        "train 7 % · 0:09 left",
    ],
)
def test_a_sentence_is_understood_and_told_again_alike(sentence: str) -> None:
    progress = Progress.parse(sentence)
    assert progress is not None
    assert progress.sentence() == sentence


@pytest.mark.parametrize("text", ["", "done", "42 %", "train 42%", "Loaded 100 rows", "train x %", "a\nb 5 %"])
def test_any_other_text_is_no_progress(text: str) -> None:
    assert Progress.parse(text) is None


def test_nobody_has_to_listen() -> None:
    silent(Progress("train", 0.5))
