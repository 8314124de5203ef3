"""Golden sets: questions that are never trained on, from a file of the product or a public corpus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evaluation_spec import GoldenSpec
from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.contracts.reading import parse_json
from ml_platform.errors import ContractError, MlPlatformError, SourceDataError
from ml_platform.families.lora.soundness import sound_examples

Golden = Mapping[str, list[Example]]


@dataclass(frozen=True)
class GoldenContext:
    """What the hook of a golden set is given; it is called as `attacks(context) -> list[Example]`."""

    product: Product


def load_golden_sets(product: Product) -> dict[str, list[Example]]:
    """Every golden set of a product by name. Raises SourceDataError or ContractError that names file and line."""
    return {name: _load(product, name, spec) for name, spec in product.spec.evaluation.golden_sets.items()}


def golden_sha256(golden: Golden) -> dict[str, str]:
    """The digest of every golden set's questions and answers."""
    return {name: digest([one.model_dump(mode="json") for one in examples]) for name, examples in golden.items()}


def read_examples(path: Path) -> list[Example]:
    """The examples in a JSONL file, one a line. Raises ContractError that names the line and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ContractError(f"{path}: there is no such file. Create it, or correct the path.") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: is not UTF-8 text ({error}). Save it as UTF-8.") from None
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}. Name a file that may be read.") from None
    return parse_examples(text, str(path))


def parse_examples(text: str, where: str) -> list[Example]:
    """The examples in a text, one a line; `where` is what errors call its origin. Raises ContractError."""
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            data = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise ContractError(
                f"{where}, line {number}: is not JSON ({error}). Expected one example a line."
            ) from None
        examples.append(Example.parse(data, where=f"{where}, line {number}"))
    return examples


def _load(product: Product, name: str, spec: GoldenSpec) -> list[Example]:
    if spec.path is not None:
        where = str(product.folder / spec.path)
        found = read_examples(product.folder / spec.path)
    else:
        where = f"golden set '{name}' (hook {spec.hook})"
        found = _run_hook(product, where, spec.hook or "")
    if not found:
        raise SourceDataError(f"{where}: holds no examples. A golden set needs at least one.")
    return sound_examples(as_shown(product, found), product.spec.evaluation, where)


def as_shown(product: Product, examples: Iterable[Example]) -> list[Example]:
    """The examples with their facts as the product's action policy shows them to the model, here as in serving."""
    policy = product.action_policy
    if policy is None or policy.shown_as is None:
        return list(examples)
    return [one.model_copy(update={"facts": policy.show(one.facts)}) for one in examples]


def _run_hook(product: Product, where: str, reference: str) -> list[Example]:
    try:
        found = list(product.hook(reference)(GoldenContext(product)))
    except MlPlatformError:
        raise
    except Exception as error:
        raise SourceDataError(
            f"{where}: raised {type(error).__name__}: {error}. Correct the hook or its input."
        ) from error
    if not all(isinstance(one, Example) for one in found):
        raise SourceDataError(f"{where}: returned something else than Examples. Correct the hook.")
    return found
