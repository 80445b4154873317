"""``python -m training.evaluate``: how good is a bundle, or somebody's predictions, on a labelled data set?

It runs the real `getok_drive.pipeline.Perceiver` and scores exactly what that would have written to ``scenes.jsonl`` (coordinates
rounded to 0.01 px included), so a score can be had again from the file alone (``--predictions``). An interrupted run continues
with the same command. Drawing or loading the pictures is not part of any reported time.

    python -m training.evaluate --dataset world:test --bundle BUNDLE --out runs/eval
    python -m training.evaluate --dataset world:test --predictions scenes.jsonl --out runs/theirs
    python -m training.evaluate --dataset world:val --bundle BUNDLE --fit-calibration --out runs/calibration
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from getok_drive.bundle import Bundle
from getok_drive.errors import ConfigError, GetokError, InputError
from getok_drive.tokens.confidence import Calibration, fit_temperature
from getok_drive.tokens.elements import KINDS as CONTRACT_KINDS
from getok_drive.types import Frame, Scene
from training.evaluation import Collector, Report, machine, sample_sha256
from training.metrics.calibration import compose
from training.predictions import read_lines, scene_from_json
from training.report import write_html
from training.samples import KINDS, Sample
from training.sources import Source, open_source


class SceneSource(Protocol):
    """Anything that sees: the pipeline's `Perceiver`, or a model in training behind the same method."""

    def run(self, frame: Frame) -> Scene:
        """The scene of one frame."""
        ...


def fit_calibration(
    pairs: Mapping[str, npt.ArrayLike], current: Mapping[str, Calibration] | None = None
) -> dict[str, Calibration]:
    """The calibrations to write into a bundle's contract, by its names of the kinds (``lane``, ``drivable``, ``box``, ``sign``).

    Args:
        pairs: ``Report.pairs`` of validation data: by kind (``lanes`` ...), ``(N, 2)`` confidence and hit (0 or 1).
        current: the calibrations that the confidences have already been through: ``Bundle.calibration`` of the evaluated bundle.

    Returns:
        A calibration of the *raw* confidence for every kind that has predictions; it replaces the current one.

    Raises:
        InputError: there is no prediction of any kind.
    """
    fitted = {}
    for kind, name in zip(KINDS, CONTRACT_KINDS, strict=True):
        values = np.asarray(pairs.get(kind, ()), dtype=np.float64).reshape(-1, 2)
        if len(values):
            before = (current or {}).get(name, Calibration())
            fitted[name] = compose(before, Calibration(*fit_temperature(values[:, 0], values[:, 1])))
    if not fitted:
        raise InputError("calibration: no predictions to fit to; the model found nothing in these pictures")
    return fitted


def evaluate_samples(
    perceiver: SceneSource, samples: Iterable[Sample], tasks: Sequence[str] = KINDS, limit: int | None = None
) -> Report:
    """Run and score some samples in memory, e.g. during training.

    Args:
        perceiver: has ``run(Frame) -> Scene``.
        samples: labelled pictures.
        tasks: kinds to score.
        limit: at most so many.
    """
    collector = Collector(tasks)
    for index, sample in enumerate(samples):
        if limit is not None and index >= limit:
            break
        key = str(sample.meta.get("source") or index)
        frame = Frame(sample.image_bgr, source=key, index=index)
        start = time.perf_counter()
        scene = perceiver.run(frame)
        wall_ms = (time.perf_counter() - start) * 1e3
        collector.add(key, sample, scene_from_json(scene.to_json(), key), wall_ms)
    return collector.report()


# --- the command -------------------------------------------------------------------------------------------------------


def _kept(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Predictions of an earlier, interrupted run of the same settings, by picture."""
    settings_path, kept = path.with_name("run.json"), {}
    if path.exists() and settings_path.exists():
        before = json.loads(settings_path.read_text(encoding="utf-8"))
        changed = sorted(name for name in settings if before.get(name) != settings[name])
        if changed:
            raise ConfigError(
                f"{path.parent}: has predictions of other settings ({', '.join(changed)} differ); delete it or give another --out"
            )
        kept = {record["key"]: record for record in read_lines(path, repair=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return kept


def predict(
    source: Source, out: Path, settings: dict[str, Any], open_perceiver: Callable[[], SceneSource], collector: Collector
) -> None:
    """Run a pipeline over a data set, picking up where an earlier run stopped.

    Args:
        source: the pictures.
        out: folder of ``predictions.jsonl`` and ``run.json``.
        settings: what must be equal for earlier predictions to be kept.
        open_perceiver: makes the pipeline; called once, and only if there is a picture left.
        collector: takes the scores.

    Raises:
        ConfigError: ``out`` holds predictions of other settings.
        InputError: a picture has changed since it was predicted.
    """
    path = out / "predictions.jsonl"
    kept = _kept(path, settings)
    perceiver: SceneSource | None = None
    with path.open("a", encoding="utf-8") as file:
        for index in tqdm(range(len(source)), desc="evaluate", unit="frame"):
            sample, key = source.load(index), source.key(index)
            digest = sample_sha256(sample)
            record = kept.get(key)
            if record is None:
                frame = Frame(sample.image_bgr, source=key, index=index)
                if perceiver is None:
                    perceiver = open_perceiver()
                    perceiver.run(frame)  # first-run costs (allocation, kernels) are not the speed of a frame
                start = time.perf_counter()
                scene = perceiver.run(frame)
                wall_ms = (time.perf_counter() - start) * 1e3
                record = {**scene.to_json(), "key": key, "sample_sha256": digest, "wall_ms": round(wall_ms, 3)}
                file.write(json.dumps(record) + "\n")
                file.flush()
            elif record["sample_sha256"] != digest:
                raise InputError(f"{record['_where']}: {key} has changed since; delete {path} to start afresh")
            collector.add(key, sample, scene_from_json(record, key), record["wall_ms"], digest)


def _run_bundle(args: argparse.Namespace, source: Source, collector: Collector) -> None:
    from getok_drive.pipeline import Perceiver  # the runtime is only needed here

    settings = {
        "dataset": args.dataset, "split": args.split, "size": args.size, "backend": args.backend,
        "bundle_sha256": Bundle.load(args.bundle).sha256,
    }  # fmt: skip
    predict(source, Path(args.out), settings, lambda: Perceiver(args.bundle, backend=args.backend), collector)


def _score_file(args: argparse.Namespace, source: Source, collector: Collector) -> None:
    """Score predictions that somebody else made; lines are found by ``key``, else by ``source``."""
    lines: dict[str, dict[str, Any]] = {}
    for record in read_lines(Path(args.predictions)):
        lines[str(record.get("key") or record.get("source") or "")] = record
    missing = [source.key(i) for i in range(len(source)) if source.key(i) not in lines]
    if missing and not args.allow_missing:
        raise InputError(
            f"{args.predictions}: {len(missing)} of {len(source)} pictures have no line, the first is {missing[0]!r} (the key or "
            "source of a line must equal it); --allow-missing scores them as empty"
        )
    for index in tqdm(range(len(source)), desc="score", unit="frame"):
        sample, key = source.load(index), source.key(index)
        line = lines.get(key)
        scene = Scene(sample.size_wh) if line is None else scene_from_json(line, line["_where"])
        wall_ms = scene.timings.total_ms or None
        collector.add(key, sample, scene, wall_ms, sample_sha256(sample))
    collector.missing = len(missing)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="world:test, world:val, world:FIRST-LAST, or KIND:PATH")
    parser.add_argument("--split", default="test", help="of KIND:PATH data sets (default: test)")
    parser.add_argument("--size", default="448x252", help="WIDTHxHEIGHT of the world's pictures (default: 448x252)")
    parser.add_argument("--bundle", help="the bundle to run: a folder, or the name of a built-in one")
    parser.add_argument("--predictions", help="score this scenes.jsonl instead of running a bundle")
    parser.add_argument(
        "--allow-missing", action="store_true", help="pictures without a line in --predictions count as empty scenes"
    )
    parser.add_argument("--backend", default="onnx", choices=("onnx", "torch", "tensorrt"))
    parser.add_argument("--tasks", default=",".join(KINDS), help=f"comma-separated kinds to score (default: {','.join(KINDS)})")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--out", required=True, help="folder for report.json, report.html, predictions.jsonl")
    parser.add_argument("--worst", type=int, default=12, help="how many worst cases the page shows (default: 12)")
    parser.add_argument(
        "--fit-calibration", action="store_true", help="fit temperature and bias of the confidences; writes calibration.json"
    )
    return parser


def _write_calibration(args: argparse.Namespace, report: Report) -> None:
    fitted = fit_calibration(report.pairs, Bundle.load(args.bundle).calibration if args.bundle else None)
    record = {name: {"temperature": c.temperature, "bias": c.bias} for name, c in fitted.items()}
    path = Path(args.out) / "calibration.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name, c in fitted.items():
        print(f"calibration of {name}: temperature {c.temperature:.4f}, bias {c.bias:.4f}")
    print(path)


def run(argv: Sequence[str] | None = None) -> Report:
    """Parse the command line, evaluate, write the files, print the table.

    Raises:
        GetokError: what is wrong with the options, the data, the bundle or the predictions.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    tasks = [task for task in args.tasks.split(",") if task]
    unknown = [task for task in tasks if task not in KINDS]
    if unknown or not tasks:
        raise ConfigError(f"--tasks: {', '.join(unknown) or 'nothing'} given; choose from {', '.join(KINDS)}")
    if bool(args.bundle) == bool(args.predictions):
        raise ConfigError("give either --bundle (to run it) or --predictions (to score a file)")
    source = open_source(args.dataset, args.split, args.size, args.limit)
    collector = Collector(tasks, worst=args.worst)
    (_run_bundle if args.bundle else _score_file)(args, source, collector)
    report = collector.report(
        dataset={"name": source.name, "frames": len(source), "sha256": collector.dataset_sha256},
        command=shlex.join(["python", "-m", "training.evaluate", *arguments]),
        backend=args.backend if args.bundle else None,
        machine=machine(),
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    write_html(report, out / "report.html")
    print(report.table())
    print(f"{out / 'report.html'}")
    if args.fit_calibration:
        _write_calibration(args, report)
    return report


def main() -> int:
    """Entry point; 0 on success, 2 on a mistake in options or data, 130 when interrupted."""
    try:
        run()
    except GetokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished frames are kept, the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
