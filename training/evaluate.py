"""``python -m training.evaluate``: how good is a bundle, or somebody's predictions, on a labelled data set?

It runs the real `getok_drive.pipeline.Perceiver` and scores exactly what that would have written to ``scenes.jsonl`` (coordinates
rounded to 0.01 px included), so a score can be had again from the file alone (``--predictions``). An interrupted run continues
with the same command. Drawing or loading the pictures is not part of any reported time.

    python -m training.evaluate --dataset world:test --bundle BUNDLE --out runs/eval
    python -m training.evaluate --dataset world:test --predictions scenes.jsonl --out runs/theirs
    python -m training.evaluate --dataset world:val --bundle BUNDLE --fit-calibration --out runs/calibration

Over the frames of a drive, lanes, boxes and signs are also scored for steadiness (`training.metrics.temporal`):

    python -m training.evaluate --dataset world-drive:0-9 --bundle BUNDLE --out runs/drives

What a benchmark counts in its own way is counted so on its own data set (`training.metrics.benchmarks`).

Tasks with a prompt of their own (`training.prompted`) are asked query by query, or scored from answers in the same kind of file:

    python -m training.evaluate --dataset world:val --tasks classification --bundle BUNDLE --backend torch --out runs/words
    python -m training.evaluate --dataset referring:PATH --tasks rec,res --write-queries queries.jsonl
    python -m training.evaluate --dataset referring:PATH --tasks rec,res --predictions answers.jsonl --out runs/theirs

Road graphs of OpenLane-V2 can be scored (`training.road_graphs`), though the project's own model does not see them:

    python -m training.evaluate --dataset openlane_v2:PATH --split val --tasks topology --predictions g.jsonl --out runs/theirs

So can 3D boxes in nuScenes' own submission format (`training.scene_boxes`), with its mAP, errors and NDS:

    python -m training.evaluate --dataset nuscenes:PATH --split val --tasks detection3d --predictions s.json --out runs/theirs

The lanes can be written as the benchmarks' own submissions (`training.submissions`):

    python -m training.evaluate --dataset tusimple:PATH --bundle BUNDLE --export tusimple --out runs/tusimple
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from getok_drive.bundle import Bundle
from getok_drive.errors import ConfigError, GetokError, InputError
from getok_drive.tokens.confidence import Calibration, fit_temperature
from getok_drive.tokens.elements import KINDS as CONTRACT_KINDS
from getok_drive.types import Frame
from training import prompted, road_graphs, scene_boxes, submissions
from training.evaluation import Collector
from training.evaluation_runs import SceneSource, predict, predict_answers, score_file, write_queries
from training.metrics.calibration import compose
from training.predictions import scene_from_json
from training.report import write_html
from training.results import Report, machine
from training.samples import KINDS, Sample
from training.sources import Source, open_source

TASKS = (*KINDS, *prompted.TASKS, road_graphs.TASK, scene_boxes.TASK)


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


def _run_bundle(
    args: argparse.Namespace, source: Source, collector: Collector, kinds: Sequence[str], tasks: Sequence[str]
) -> None:
    bundle = Bundle.load(args.bundle)
    settings = {
        "dataset": args.dataset, "split": args.split, "size": args.size, "backend": args.backend,
        "bundle_sha256": bundle.sha256, "rounds": args.rounds,
    }  # fmt: skip
    if kinds:
        from getok_drive.pipeline import Perceiver  # the runtime is only needed here

        least = 0.0 if args.fit_calibration else args.min_confidence
        open_perceiver = lambda: Perceiver(bundle, backend=args.backend, rounds=args.rounds, min_confidence=least)  # noqa: E731
        predict(source, Path(args.out), {**settings, "min_confidence": least}, open_perceiver, collector)
    if tasks:
        from training.prompted.asking import Asker

        settings = {**settings, "segmenter": args.segmenter}
        open_asker = lambda: Asker(bundle, args.backend, args.segmenter)  # noqa: E731
        predict_answers(source, Path(args.out), settings, open_asker, collector, tasks)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="world:SEEDS or world-drive:SEEDS (test, val, FIRST-LAST), or KIND:PATH")
    parser.add_argument("--split", default="test", help="of KIND:PATH data sets (default: test)")
    parser.add_argument(
        "--size",
        default="448x252",
        help="WIDTHxHEIGHT of the driving world's pictures; by default 448x252, as nano sees them",
    )
    parser.add_argument("--bundle", help="the bundle to run: a folder, or the name of a built-in one")
    parser.add_argument("--predictions", help="score this file of scenes and answers instead of running a bundle")
    parser.add_argument(
        "--allow-missing", action="store_true", help="what has no line in --predictions counts as an empty scene or answer"
    )
    parser.add_argument("--backend", default="onnx", choices=("onnx", "torch", "tensorrt"))
    every = ",".join(TASKS)
    parser.add_argument("--tasks", default=",".join(KINDS), help=f"comma-separated, of {every} (default: {','.join(KINDS)})")
    parser.add_argument("--segmenter", default="opencv", help="makes masks of the points of answers (see training.segmenters)")
    parser.add_argument("--write-queries", metavar="FILE", help="only write what the prompted tasks ask, for other programs")
    parser.add_argument("--export", choices=submissions.FORMATS, help="also write the lanes as a submission, into OUT/submission")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    parser.add_argument("--out", help="folder for report.json, report.html, scores.jsonl, predictions.jsonl, answers.jsonl")
    parser.add_argument("--rounds", type=int, help="offset rounds that are asked for (default: as many as the bundle says)")
    parser.add_argument("--min-confidence", type=float, help="leave out elements below it (default: as the bundle says)")
    parser.add_argument("--worst", type=int, default=12, help="how many worst cases the page shows (default: 12)")
    parser.add_argument(
        "--fit-calibration", action="store_true", help="fit temperature and bias of all confidences; writes calibration.json"
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


def run(argv: Sequence[str] | None = None) -> Report | None:
    """Parse the command line, evaluate, write the files, print the table; None where only queries were asked for.

    Raises:
        GetokError: what is wrong with the options, the data, the bundle or the predictions.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    asked = [task for task in args.tasks.split(",") if task]
    unknown = [task for task in asked if task not in TASKS]
    if unknown or not asked:
        raise ConfigError(f"--tasks: {', '.join(unknown) or 'nothing'} given; choose from {', '.join(TASKS)}")
    kinds, tasks = ([task for task in asked if (task in KINDS) == of_scene] for of_scene in (True, False))
    if scene_boxes.TASK in asked:
        return _finish(args, arguments, *_score_boxes_3d(args, asked))
    source = open_source(args.dataset, args.split, args.size, args.limit)
    if args.write_queries:
        print(f"{write_queries(Path(args.write_queries), source, tasks)} queries in {args.write_queries}")
        return None
    if bool(args.bundle) == bool(args.predictions) or not args.out:
        raise ConfigError("give either --bundle (to run it) or --predictions (to score a file), and --out")
    if args.bundle and road_graphs.TASK in tasks:
        raise ConfigError(f"--tasks {road_graphs.TASK}: a bundle's model sees no road graphs; give --predictions")
    exporter = submissions.open_writer(args.export, Path(args.out) / "submission", source) if args.export else None
    collector = Collector(kinds, worst=args.worst, watch=exporter)
    if args.bundle:
        _run_bundle(args, source, collector, kinds, tasks)
    else:
        score_file(Path(args.predictions), source, collector, kinds, tasks, args.allow_missing)
    if exporter:
        print(exporter.finish())
    return _finish(args, arguments, collector, source.name, len(source))


def _score_boxes_3d(args: argparse.Namespace, asked: Sequence[str]) -> tuple[Collector, str, int]:
    if len(asked) > 1 or args.bundle or args.write_queries or args.export or not args.predictions or not args.out:
        raise ConfigError(f"--tasks {scene_boxes.TASK}: goes by key frames; it takes --predictions and --out, and no other task")
    frames = scene_boxes.open_frames(args.dataset, args.split, args.limit)
    collector = Collector(())
    scene_boxes.score(Path(args.predictions), frames, collector, args.allow_missing)
    return collector, frames.name, len(frames)


def _finish(args: argparse.Namespace, arguments: Sequence[str], collector: Collector, name: str, frames: int) -> Report:
    """Write the report's files and print its table."""
    report = collector.report(
        dataset={"name": name, "frames": frames, "sha256": collector.dataset_sha256},
        command=shlex.join(["python", "-m", "training.evaluate", *arguments]),
        backend=args.backend if args.bundle else None,
        machine=machine(),
    )
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    collector.write_scores(out / "scores.jsonl")
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
