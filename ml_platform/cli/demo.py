"""`mlp demo`: nine months of a product in half an hour, a bad release among them, by the real processes."""

import os
import shutil
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.cli.output import AsJson, print_json, print_pairs
from ml_platform.errors import BusyError, InvalidInputError, OperationError

if TYPE_CHECKING:
    from ml_platform.cli.demonstration.board import Board
    from ml_platform.cli.demonstration.plan import Fault, Form
    from ml_platform.cli.demonstration.stage import Stage
    from ml_platform.cli.demonstration.story import Told
    from ml_platform.contracts.home import Home

MARK = ".demo"
"""The file that tells a demonstration's home from any other: only such a one is ever removed."""
SHARED = ("artifacts", "base_models")
KEPT = ("ML_PLATFORM_PRODUCTS", "ML_PLATFORM_CHECKOUT")
"""All that the demonstration takes of the owner's settings: no ledger, no store, no key of anywhere else."""


class FaultName(StrEnum):
    """What may be planted."""

    SKEWED_FEATURE = "skewed_feature"
    WORSE_PROMPT = "worse_prompt"
    SLOW = "slow"
    UNSAFE = "unsafe"


def demo(
    fault: Annotated[FaultName, typer.Option(help="What is wrong with the release that is planted.")] = (
        FaultName.SKEWED_FEATURE
    ),
    product: Annotated[str, typer.Argument(help="A product with a demo.yaml.")] = "flight_assistant",
    full: Annotated[bool, typer.Option("--full", help="The product itself with all its gates: hours, not minutes.")] = (
        False
    ),
    as_json: AsJson = False,
) -> None:
    """Play April to December 2013: a good release, a planted bad one, drift, a run that starts itself, a new release.

    All of it happens in a home of its own below this home's `demo`, begun anew each time; only artifacts are shared.
    Exit code 1 when something that must happen did not.
    """
    from ml_platform.cli.demonstration.board import Board
    from ml_platform.cli.demonstration.plan import read_plan
    from ml_platform.cli.demonstration.view import DemoView
    from ml_platform.cli.environment import find_checkout
    from ml_platform.contracts.home import Home
    from ml_platform.contracts.products import find_product

    checkout, owner = find_checkout(), Home.from_environment()
    plan = read_plan(find_product(product, checkout / "products").folder)
    planted, form = plan.fault(fault.value), plan.full if full else plan.short
    if form is None:
        raise InvalidInputError(f"{product} has no full form in its demo.yaml.")
    home = begin_home(owner, f"{fault.value}{'-full' if full else ''}")
    board = Board(form.product, planted.title)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with DemoView(board, as_json=as_json) as view:
        told, problem = _play(home, checkout, form, planted, board, view.show, product)
    page = _write_page(home, board, told, form, planted)
    _report(board, told, page, home, as_json=as_json)
    if problem:
        raise problem


def _end(_number: int, _frame: object) -> None:
    """Whoever ends the demonstration ends its processes, too."""
    raise KeyboardInterrupt


def begin_home(owner: "Home", name: str) -> "Home":
    """An empty home for a demonstration below the owner's, which shares its artifacts and base models.

    Raises InvalidInputError where something else lies in its place, BusyError where one is being played.
    """
    from ml_platform.contracts.home import Home

    root = owner.root / "demo" / name
    if root.exists():
        if not (root / MARK).is_file():
            raise InvalidInputError(f"{root} is no home of a demonstration. Move it away.")
        if _is_alive((root / MARK).read_text(encoding="utf-8").strip()):
            raise BusyError(f"{root}: a demonstration is being played there. Wait for it, or end it.")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / MARK).write_text(str(os.getpid()), encoding="utf-8")
    for part in SHARED:
        (owner.root / part).mkdir(exist_ok=True)
        (root / part).symlink_to(owner.root / part, target_is_directory=True)
    return Home(root)


def _is_alive(process_id: str) -> bool:
    return process_id.isdigit() and int(process_id) != os.getpid() and Path(f"/proc/{process_id}").exists()


def _play(
    home: "Home", checkout: Path, form: "Form", planted: "Fault", board: "Board", show: Any, product: str
) -> "tuple[Told, OperationError | None]":
    """Sets the stage, plays, and clears it; what came of it, and why it ended early."""
    from ml_platform.cli.demonstration.board import Watcher
    from ml_platform.cli.demonstration.processes import Processes
    from ml_platform.cli.demonstration.story import Story
    from ml_platform.cli.environment import child_environment
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.looks import LookStore

    enter(home, checkout, form, product)
    with Processes(checkout, child_environment(home), home.root / "logs") as processes:
        stage = _stage(home, checkout, form, planted, board, processes)
        story = Story(stage)
        with Watcher(board, Ledger(home.ledger_url), LookStore(home.monitoring_url), show=show):
            try:
                story.play()
            except OperationError as error:
                board.say(f"it ends here: {error}")
                return story.told, error
        return story.told, None


def enter(home: "Home", checkout: Path, form: "Form", product: str) -> None:
    """Writes the variant, and says in this process's environment where it and the home are: children inherit it.

    What points to another ledger, store or key is taken out: a planted release must get nowhere else.
    """
    from ml_platform.cli.demonstration.variant import write_variant
    from ml_platform.contracts.products import VARIABLE, find_product

    for name in [*(name for name in os.environ if name.startswith("ML_PLATFORM_")), "MLFLOW_TRACKING_URI"]:
        if name not in KEPT:
            os.environ.pop(name, None)
    os.environ["ML_PLATFORM_HOME"] = str(home.root)
    source = find_product(product, checkout / "products").folder
    if form.product != product:
        below = home.root / "products"
        write_variant(source, form, below)
        os.environ[VARIABLE] = os.pathsep.join([str(below), os.environ.get(VARIABLE, "")]).strip(os.pathsep)


def _stage(home: "Home", checkout: Path, form: "Form", planted: "Fault", board: "Board", processes: Any) -> "Stage":
    from ml_platform.cli.demonstration.stage import Stage
    from ml_platform.contracts.products import find_product
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.object_store import artifact_store

    return Stage(
        home=home,
        checkout=checkout,
        form=form,
        fault=planted,
        board=board,
        processes=processes,
        product=find_product(form.product, checkout / "products"),
        store=artifact_store(home),
        ledger=Ledger(home.ledger_url),
    )


def _write_page(home: "Home", board: "Board", told: "Told", form: "Form", planted: "Fault") -> Path:
    from ml_platform.cli.demonstration.page import write_page

    return write_page(home, board, told, form, planted)


def _report(board: "Board", told: "Told", page: Path, home: "Home", *, as_json: bool) -> None:
    found = {
        "product": board.product,
        "fault": board.fault,
        "seconds": round(board.seconds, 1),
        "questions": board.asked,
        "releases": {"good": told.good, "bad": told.bad, "new": told.new},
        "stopped_after_questions": told.questions_until_stopped,
        "identical_answer": told.identical,
        "promoted_after_questions": told.questions_until_promoted,
        "drift": {report.as_of.isoformat(): str(report.verdict) for report in told.drift},
        "page": str(page),
        "home": str(home.root),
    }
    if as_json:
        print_json(found)
    else:
        look = f"ML_PLATFORM_HOME={home.root} ML_PLATFORM_PRODUCTS={home.root / 'products'} make up"
        print_pairs([("the page", page), ("to look around", look), ("took", f"{board.seconds / 60:.1f} minutes")])


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command(rich_help_panel="Runs")(demo)
