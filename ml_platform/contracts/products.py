"""Products found in folders, read and checked; no code of theirs runs until a hook is called."""

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ml_platform.contracts.agreement import require_agreement
from ml_platform.contracts.base import Contract
from ml_platform.contracts.canonical import file_sha256
from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import ActionPolicy, PromotionPolicy
from ml_platform.contracts.product import GuardrailSpec, ProductSpec, PromptSpec
from ml_platform.contracts.serving import ServingContent, ServingSpec
from ml_platform.contracts.source import SourceSpec
from ml_platform.errors import ContractError, UnknownProductError

T = TypeVar("T", bound=Contract)

VARIABLE = "ML_PLATFORM_PRODUCTS"
"""Further folders of products, separated like PATH."""

CHECKOUT = "ML_PLATFORM_CHECKOUT"
"""Where the Dagster layer lies, and its folder `products`, for whoever works elsewhere."""

PLAIN_SERVING = ServingSpec(version="1.0.0")
"""How a product serves that says nothing of it."""

_SAID_ELSEWHERE = (
    "examples.entity, examples.facts or the entity of the features, or say in a serving.yaml what requests bring"
)


@dataclass(frozen=True)
class Product:
    """One product: its folder and every value that the folder declares."""

    folder: Path
    spec: ProductSpec
    prompt: PromptSpec
    promotion_policy: PromotionPolicy
    monitor_policy: MonitorPolicy
    guardrails: GuardrailSpec
    action_policy: ActionPolicy | None
    features: FeatureSpec | None
    serving: ServingSpec = PLAIN_SERVING

    @property
    def name(self) -> str:
        """The product's name, which is also its Dagster group and key prefix."""
        return self.spec.name

    @property
    def serving_content(self) -> ServingContent:
        """What a release keeps of how the product serves: schema, feature definitions, hooks and their sources.

        Raises ContractError when serving.yaml names a hook that is in no file, or columns that are in no source.
        """
        # A gateway loads the file of the hook alone, so no other one can change an answer.
        named = [self.serving.facts.partition(":")[0]] if self.serving.facts else []
        sources = {name: _source_text(self.folder / name) for name in named if (self.folder / name).is_file()}
        brought = self._request_sources()
        return ServingContent.parse(
            {
                "spec": self.serving,
                "evaluation": self.spec.evaluation,
                "features": self.features,
                "types": {column: source.columns[column] for column, source in brought.items()},
                "nullable": self._may_be_missing(brought),
                "facts": self.spec.examples.facts,
                "sources": sources,
            },
            where=f"{self.folder}: how it serves",
        )

    def _request_sources(self) -> dict[str, SourceSpec]:
        """Where each column that a request brings has its type: the first source of a lookup, the examples, or any."""
        sources = self.spec.sources
        looked_up = [lookup.source for lookup in self.serving.lookups.values()]
        examples = [self.spec.examples.source] if self.spec.examples.source else []
        ordered = [sources[name] for name in (*looked_up, *examples, *sources) if name in sources]
        found = {}
        for column in (*self.serving.entity, *self.serving.given):
            home = next((source for source in ordered if column in source.columns), None)
            if home is None:
                known = [name for source in sources.values() for name in source.columns]
                nearest = difflib.get_close_matches(column, known, n=1)
                hint = f": did you mean '{nearest[0]}'?" if nearest else "."
                said = "entity or given in serving.yaml" if self.spec.files.serving else _SAID_ELSEWHERE
                raise ContractError(
                    f"{self.folder}: serving: requests are to bring '{column}', but no source has such a column{hint} "
                    f"Correct {said}."
                )
            found[column] = home
        return found

    def _may_be_missing(self, brought: Mapping[str, SourceSpec]) -> tuple[str, ...] | None:
        """The given columns that may be empty where they were learnt, and by which nothing is looked up."""
        keys = {key for lookup in self.serving.lookups.values() for key in lookup.key}
        keys |= {*self.features.entity_columns} if self.features else set()
        learnt = self.spec.sources.get(self.spec.examples.source or "")

        def nullable(column: str) -> bool:
            home = learnt if learnt and column in learnt.columns else brought[column]
            return column in home.nullable and column not in keys

        return tuple(column for column in self.serving.given if nullable(column)) or None

    def hook(self, reference: str) -> Callable[..., Any]:
        """The function that `file.py:function` names in the product folder.

        Raises ContractError when there is no such file or function, or the file cannot be imported.
        """
        file, _, function = reference.partition(":")
        path = self.folder / file
        if not path.is_file():
            raise ContractError(f"{self.folder / 'product.yaml'}: hook '{reference}': there is no file {path}.")
        module = _imported(path, f"{self.name}__{path.stem}")
        found = getattr(module, function, None)
        if not callable(found):
            names = [name for name in vars(module) if not name.startswith("_")]
            nearest = difflib.get_close_matches(function, names, n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
            raise ContractError(f"{path}: has no function '{function}'.{hint}")
        return found  # type: ignore[no-any-return]

    def file_digests(self) -> dict[str, str]:
        """SHA-256 of every Python file of the product, by path below the folder; links to nothing are no files."""
        files = (path for path in sorted(self.folder.rglob("*.py")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): file_sha256(path) for path in files}


def _source_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read as UTF-8: {error}. Save it again as UTF-8.") from error


def _imported(path: Path, name: str) -> ModuleType:
    """The module in a file, registered under its name as dataclasses and pickling need it."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ContractError(f"{path}: cannot be loaded as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ContractError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


def load_product(folder: Path) -> Product:
    """The product in a folder, which a release could serve as it says.

    Raises ContractError that names the file and the key.
    """
    spec = ProductSpec.read(folder / "product.yaml")
    if spec.name != folder.name:
        raise ContractError(
            f"{folder / 'product.yaml'}: key 'name' is '{spec.name}' but the folder is '{folder.name}'. "
            "Make them equal."
        )
    files = spec.files

    def optional(model: type[T], name: str | None) -> T | None:
        return model.read(folder / name) if name else None

    features = optional(FeatureSpec, files.features)
    product = Product(
        folder=folder,
        spec=spec,
        prompt=PromptSpec.read(folder / files.prompt),
        promotion_policy=PromotionPolicy.read(folder / files.promotion_policy),
        monitor_policy=MonitorPolicy.read(folder / files.monitor_policy),
        guardrails=GuardrailSpec.read(folder / files.guardrails),
        action_policy=optional(ActionPolicy, files.action_policy),
        features=features,
        serving=optional(ServingSpec, files.serving) or _plain_serving(spec, features),
    )
    # Only the release needs it, after hours of training: a mistake is to be told before.
    _ = product.serving_content
    require_agreement(product)
    return product


def _plain_serving(spec: ProductSpec, features: FeatureSpec | None) -> ServingSpec:
    """How a product serves that says nothing of it: a question names what its examples are about, and brings the
    columns of the facts and of the features' keys."""
    entity = (spec.examples.entity,) if spec.examples.entity else ()
    known, keys = (features.feature_names, features.entity_columns) if features else ((), ())
    given = (*(name for name in spec.examples.facts if name not in known), *keys)
    brought = tuple(name for name in dict.fromkeys(given) if name not in entity)
    return PLAIN_SERVING.model_copy(update={"entity": entity, "given": brought})


def product_folders(root: Path | None = None) -> dict[str, Path]:
    """Every product folder by name: below `root` (default `products` in ML_PLATFORM_CHECKOUT, else here),
    then below each folder that ML_PLATFORM_PRODUCTS names, separated like PATH.

    A folder is a product when it holds product.yaml; an entry may also be a product itself.
    Raises ContractError when two folders have one name, or ML_PLATFORM_PRODUCTS names no folder.
    """
    further = [Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for path in further:
        if not path.is_dir():
            raise ContractError(f"{VARIABLE} names {path}, which is no folder. Correct the path, or leave it out.")
    roots = [root or Path(os.environ.get(CHECKOUT) or ".") / "products", *further]
    found: dict[str, Path] = {}
    for base in roots:
        folders = [base] if (base / "product.yaml").is_file() else sorted(base.glob("*/"))
        for folder in (folder.resolve() for folder in folders if (folder / "product.yaml").is_file()):
            if found.setdefault(folder.name, folder) != folder:
                raise ContractError(
                    f"two products are called '{folder.name}': {found[folder.name]} and {folder}. Rename one."
                )
    return found


def find_product(name: str, root: Path | None = None) -> Product:
    """The product of that name; raises UnknownProductError with the nearest known name."""
    folders = product_folders(root)
    if name not in folders:
        nearest = difflib.get_close_matches(name, folders, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known products: {', '.join(folders) or 'none'}."
        raise UnknownProductError(
            f"there is no product '{name}': {hint} "
            "Products are folders below products/ or those in ML_PLATFORM_PRODUCTS."
        )
    return load_product(folders[name])
