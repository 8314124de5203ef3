"""How many tokens a second the engine generates against transformers' generate, and how long a new adapter takes.

    python -m benchmarks.engine --out results/engine.json
    python -m benchmarks.engine --adapter FOLDER --rounds 3

`mlp engine` serves over HTTP as in production; its clients keep 1, 8 or 32 questions under way, all to one adapter, or
in turns to three. Sequential is what a careful user writes: transformers' generate, the adapter merged, one
question after the other. Each round measures every variant once, in turns, so that a busy machine is busy for all.
Tokens are those of the answers, core-seconds the CPU time of the process that generates them: with other work on the
machine, the ratio of tokens per core-second is the one to believe. A new adapter is loaded while the engine idles, and
while 8 questions are under way; its first token is part of the time. The adapter is one of the shape that
flight_assistant trains, untrained, or the one that is named; the three differ in their bytes and not in what they cost.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil

from ml_platform.contracts.example import Example
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.contracts.report import Decoding
from ml_platform.families.lora.prompt import messages
from ml_platform.serving.adapter_names import adapter_digest
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.engine.token import engine_token
from ml_platform.serving.engine_client import EngineClient

PRODUCT = Path(__file__).parents[1] / "products" / "flight_assistant"
CONCURRENT = (1, 8, 32)
TOKENS = 32
"""About what an answer of flight_assistant has."""

WAIT_SECONDS = 600.0
LOADED_BESIDE = 8
"""So many questions are under way while a new adapter is loaded."""

ADAPTERS = {"one": "one adapter", "three": "three adapters in turns"}


def main() -> None:
    """Runs the rounds and writes the report."""
    options = parse_arguments()
    if options.sequential:
        print(json.dumps(sequential(options.sequential, options.questions, options.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        adapters = make_adapters(Path(scratch), options.adapter, 3 + options.rounds * 2)
        with engine_process(Path(scratch), options.threads) as served:
            rounds = [measure(served, adapters, number, options) for number in range(options.rounds)]
    report = {"machine": machine(), "rounds": rounds}
    print(as_markdown(rounds))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=6, help="of sequential generate and of one client at a time")
    parser.add_argument("--concurrent", type=int, nargs="+", default=CONCURRENT, help="questions under way")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--adapter", type=Path, help="the folder of a trained adapter of flight_assistant's base model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sequential", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def conversations(count: int) -> list[list[dict[str, str]]]:
    """Questions with about as many facts as flight_assistant shows."""
    prompt, draw = load_product(PRODUCT).prompt, random.Random(3)  # noqa: S311 - the same questions each time
    asked = []
    for number in range(count):
        facts: dict[str, Any] = {"flight": f"UA {draw.randint(100, 2000)}", "route": "EWR to ORD", "month": "April"}
        facts |= {f"{name} {part}": draw.randint(0, 60) for name in ("airport", "route") for part in ("late", "delay")}
        facts |= {"temperature": draw.randint(20, 90), "wind": draw.randint(0, 30), "visibility": draw.randint(0, 10)}
        question = f"Will my flight at {draw.randint(6, 22)}:{draw.randint(10, 59)} be late, please?"
        example = Example(example_id=f"q{number}", entity="e", utterance=question, facts=facts, answer="")
        asked.append(messages(prompt, example, with_answer=False))
    return asked


def make_adapters(scratch: Path, given: Path | None, count: int) -> list[Path]:
    """Adapters that differ in their bytes by less than an answer could tell."""
    from safetensors.torch import load_file, save_file

    source = given or untrained(scratch / "untrained")
    tensors = load_file(source / "adapter_model.safetensors")
    made = []
    for number in range(count):
        folder = scratch / f"adapter{number}"
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
        scaled = {name: tensor * (1.0 + number * 1e-6) for name, tensor in tensors.items()}
        save_file(scaled, folder / "adapter_model.safetensors")
        made.append(folder)
    return made


def untrained(folder: Path) -> Path:
    """An adapter of the product's shape whose weights say nothing, but are not zero."""
    import torch

    from ml_platform.families.lora.adapter import load_trainable
    from ml_platform.families.lora.base_model import ensure_base
    from ml_platform.families.lora.hardware import detect_hardware

    spec = load_product(PRODUCT).spec.training
    model = load_trainable(ensure_base(spec.base_model, Home.from_environment()), spec, detect_hardware())
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.001)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Served:
    """The engine that is measured."""

    url: str
    token: str
    process: psutil.Process

    def core_seconds(self) -> float:
        """The CPU time that it used so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)


@contextmanager
def engine_process(scratch: Path, threads: int | None) -> Iterator["Served"]:
    """`mlp engine` with 32 rows."""
    secret = scratch / "engine_token"
    command = [sys.executable, "-c", "from ml_platform.cli import main; main()", "engine", "--json", "--port", "0"]
    command += ["--base", load_product(PRODUCT).spec.training.base_model, "--batch", "32", "--context", "512"]
    command += ["--token-file", str(secret), *(["--threads", str(threads)] if threads else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.rstrip() == "}":
                    break
            yield Served(json.loads("".join(lines))["url"], engine_token(secret), psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(60.0)


def measure(served: Served, adapters: list[Path], number: int, options: argparse.Namespace) -> dict[str, Any]:
    """One round; every second one begins with the engine."""
    engine = lambda: asyncio.run(ask_engine(served, adapters, number, options))  # noqa: E731
    plain = lambda: ask_transformers(adapters[0], options)  # noqa: E731
    first, second = (engine(), plain()) if number % 2 else (plain(), engine())
    found = {**first, **second, "load": os.getloadavg()[0]}
    print(f"round {number + 1}: {json.dumps(found)}", flush=True)
    return found


def ask_transformers(adapter: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Sequential generate in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.engine", "--sequential", str(adapter)]
    threads = ["--threads", str(options.threads)] if options.threads else []
    told = subprocess.run(
        [*command, "--questions", str(options.questions), *threads], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def sequential(adapter: Path, questions: int, threads: int | None) -> dict[str, Any]:
    """Tokens a second of transformers' own generate, one question after the other."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ml_platform.families.lora.base_model import ensure_base
    from ml_platform.families.lora.encode import encode_prompt
    from ml_platform.families.lora.hardware import detect_hardware
    from ml_platform.families.lora.quiet import quiet_libraries

    detect_hardware(threads).pin()
    base = ensure_base(load_product(PRODUCT).spec.training.base_model, Home.from_environment())
    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(base.path)
        model = AutoModelForCausalLM.from_pretrained(base.path)
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
        prompts = [torch.tensor([encode_prompt(tokenizer, one)]) for one in conversations(questions + 1)]
        tokens, started, used = 0, 0.0, 0.0
        with torch.inference_mode():
            for place, ids in enumerate(prompts):  # the first one warms up
                if place <= 1:
                    started, used = time.perf_counter(), time.process_time()
                whole = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False
                )
                tokens += (whole.shape[1] - ids.shape[1]) if place else 0
    seconds, cores = time.perf_counter() - started, time.process_time() - used
    return {"sequential": {"per_second": tokens / seconds, "per_core_second": tokens / cores}}


async def ask_engine(
    served: "Served", adapters: list[Path], number: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Tokens a second with each number of questions under way, and the seconds of new adapters."""
    client = EngineClient(served.url, token=served.token)
    try:
        names = [await load(client, adapter) for adapter in adapters[:3]]
        found: dict[str, Any] = {}
        for many in options.concurrent:
            found[f"one_{many}"] = await speed(served, client, names[:1], many, options.questions)
            if many > 1:
                found[f"three_{many}"] = await speed(served, client, names, many, options.questions)
        if LOADED_BESIDE in options.concurrent:
            fresh = adapters[3 + 2 * number : 5 + 2 * number]
            found["load_idle_s"] = await new_adapter(client, fresh[0])
            busy = asyncio.ensure_future(speed(served, client, names, LOADED_BESIDE, options.questions))
            await asyncio.sleep(1.0)
            found["load_busy_s"] = await new_adapter(client, fresh[1])
            await busy
        return found
    finally:
        await client.close()


async def load(client: EngineClient, adapter: Path) -> str:
    """Loads an adapter; its name."""
    name = f"flight_assistant@{adapter_digest(adapter)}"
    await client.load(name, adapter, timeout_seconds=WAIT_SECONDS)
    return name


async def new_adapter(client: EngineClient, adapter: Path) -> float:
    """Seconds until a new adapter gave its first answer, of one token."""
    started = time.perf_counter()
    await ask(client, await load(client, adapter), conversations(1)[0], 1)
    return time.perf_counter() - started


async def speed(
    served: "Served", client: EngineClient, models: Sequence[str], many: int, questions: int
) -> dict[str, float]:
    """Tokens a second while so many questions are under way, each asked as soon as one before is answered."""
    asked = list(enumerate(conversations(max(questions, many))))
    used, started = served.core_seconds(), time.perf_counter()

    async def one_client() -> int:
        tokens = 0
        while asked:
            place, conversation = asked.pop()
            tokens += await ask(client, models[place % len(models)], conversation, TOKENS)
        return tokens

    tokens = sum(await asyncio.gather(*(one_client() for _ in range(many))))
    seconds, cores = time.perf_counter() - started, served.core_seconds() - used
    found = {"per_second": tokens / seconds, "per_core_second": tokens / cores}
    print(f"  {many} under way, {len(models)} adapters: {found}", flush=True)
    return found


async def ask(client: EngineClient, model: str, conversation: list[dict[str, str]], tokens: int) -> int:
    """One answer; how many tokens it has."""
    deadline = Deadline.after(WAIT_SECONDS, time.monotonic())
    decoding = Decoding(max_new_tokens=tokens, batch_size=1)
    return (await client.generate(model, conversation, decoding, deadline=deadline)).tokens_out


def machine() -> dict[str, Any]:
    """What was measured on."""
    import torch

    return {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}


def as_markdown(rounds: list[dict[str, Any]]) -> str:
    """The table for docs/benchmarks.md."""
    words = {"sequential": "transformers' generate, merged, one after the other"}
    for name in rounds[0]:
        kind, _, many = name.partition("_")
        if kind in ADAPTERS:
            words[name] = f"engine, {many} under way, {ADAPTERS[kind]}"
    lines = ["", "| variant | tokens per core-second | by round | against sequential | tokens/s |"]
    lines.append("| --- | ---: | --- | ---: | ---: |")
    for name, said in words.items():
        cores, seconds = ([one[name][unit] for one in rounds] for unit in ("per_core_second", "per_second"))
        ratio = statistics.median(one[name]["per_core_second"] / one["sequential"]["per_core_second"] for one in rounds)
        speed = f"{statistics.median(cores):.1f} | {told(cores)} | {ratio:.2f} | {statistics.median(seconds):.1f}"
        lines.append(f"| {said} | {speed} |")
    for name, said in {"load_idle_s": "while it idles", "load_busy_s": "while 8 questions are under way"}.items():
        found = [one[name] for one in rounds if name in one]
        if not found:
            continue
        lines.append(f"\nA new adapter's first token {said}: {statistics.median(found):.2f} s ({told(found)}).")
    return "\n".join(lines)


def told(numbers: Sequence[float]) -> str:
    """The numbers of all rounds."""
    return ", ".join(f"{number:.2f}" if number < 10 else f"{number:.1f}" for number in numbers)


if __name__ == "__main__":
    main()
