"""The suite: what a product expects of its tables, as Great Expectations understands it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_platform.contracts.base import Contract, Name, SemanticVersion
from ml_platform.contracts.product import ProductSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.source import AnsweredSpec, SourceSpec
from ml_platform.errors import ContractError

_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set", "sum_column", "id_column")
_OF_THE_RUN = frozenset({"batch_id", "windows", "rendered_content", "catch_exceptions", "id", "description", "notes"})
_NEEDS_SQL = frozenset({"unexpected_rows_expectation", "expect_query_results_to_match_comparison"})


class ExpectationSpec(Contract):
    """One expectation: a name of Great Expectations without `expect_`, its arguments, and why it is held."""

    expect: Name
    arguments: dict[str, Any] = {}
    why: str = ""


class SuiteSpec(Contract):
    """expectations.yaml: what each table must look like, beyond its declared schema."""

    version: SemanticVersion
    tables: dict[Name, tuple[ExpectationSpec, ...]]


def read_suite(product: Product) -> SuiteSpec:
    """The product's own expectations; none when it names no file.

    Raises ContractError with the nearest name for an unknown table, expectation, argument or column.
    """
    if product.spec.files.expectations is None:
        return SuiteSpec(version="0.0.0", tables={})
    path = product.folder / product.spec.files.expectations
    suite = SuiteSpec.read(path)
    for table, expectations in suite.tables.items():
        if table not in product.spec.sources:
            raise ContractError(f"{path}: tables.{table}: {_unknown('table', table, product.spec.sources)}")
        for number, spec in enumerate(expectations):
            where = f"{path}: tables.{table}[{number}] ({spec.expect})"
            _require_known_columns(where, spec, product.spec.sources[table])
            great_expectation(spec, where)
    return suite


def schema_expectations(spec: ProductSpec, table: str) -> tuple[ExpectationSpec, ...]:
    """What the declaration of a source alone demands: its columns, no gaps, one row for one key, and rows at all.

    Of answers nobody may have said anything, and their table is our own: only its shape is looked at.
    """
    source = spec.sources[table]
    key = list(source.key)
    unique = (
        ExpectationSpec(expect="column_values_to_be_unique", arguments={"column": key[0]})
        if len(key) == 1
        else ExpectationSpec(expect="compound_columns_to_be_unique", arguments={"column_list": key})
    )
    own = isinstance(source, AnsweredSpec)
    filled = () if own else [name for name in source.columns if name not in source.nullable]
    declared = "declared in product.yaml"
    return tuple(
        expectation.model_copy(update={"why": declared})
        for expectation in (
            ExpectationSpec(expect="table_row_count_to_be_between", arguments={"min_value": 0 if own else 1}),
            ExpectationSpec(
                expect="table_columns_to_match_ordered_list", arguments={"column_list": list(source.columns)}
            ),
            unique,
            *(ExpectationSpec(expect="column_values_to_not_be_null", arguments={"column": name}) for name in filled),
        )
    )


def great_expectation(spec: ExpectationSpec, where: str) -> Any:
    """The expectation as an object of Great Expectations; raises ContractError that says what is wrong with it."""
    import great_expectations.expectations as gxe

    kinds = [getattr(gxe, name) for name in dir(gxe) if name.startswith("Expect")]
    known = {kind.expectation_type: kind for kind in kinds if kind.expectation_type not in _NEEDS_SQL}
    kind = known.get(f"expect_{spec.expect.removeprefix('expect_')}")
    if kind is None:
        names = [name.removeprefix("expect_") for name in known]
        raise ContractError(f"{where}: {_unknown('expectation', spec.expect, names)}")
    arguments = sorted(set(kind.__fields__) - _OF_THE_RUN)
    for name in spec.arguments:
        if name not in arguments:
            raise ContractError(f"{where}: {_unknown('argument', name, arguments)}")
    try:
        return kind(**spec.arguments)
    except (ValueError, TypeError) as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error)
        raise ContractError(f"{where}: the arguments {spec.arguments} do not fit: {reasons}.") from None


def columns_of(spec: ExpectationSpec) -> tuple[str, ...]:
    """The columns that an expectation names."""
    found: list[str] = []
    for name in _COLUMN_ARGUMENTS:
        value = spec.arguments.get(name)
        found += [value] if isinstance(value, str) else [str(one) for one in value or ()]
    return tuple(found)


def _require_known_columns(where: str, spec: ExpectationSpec, source: SourceSpec) -> None:
    for column in columns_of(spec):
        if column not in source.columns:
            raise ContractError(f"{where}: {_unknown('column', column, source.columns)}")


def _unknown(what: str, name: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(names)}."
    return f"there is no {what} '{name}': {hint}"
