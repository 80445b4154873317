"""Fills a `Collector`: by running a pipeline or asking a model, resumably, or from a file of predictions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from getok_drive.errors import ConfigError, InputError
from getok_drive.types import Frame, ImageBgr, Scene
from training.evaluation import Collector
from training.predictions import read_lines, scene_from_json
from training.prompted.answers import Answer, answer_from_json, query_id
from training.prompted.queries import Query, queries_of
from training.results import sample_sha256
from training.road_graphs import EMPTY, TASK, graph_from_json, labelled_graph
from training.sources import Source


class SceneSource(Protocol):
    """Anything that sees: the pipeline's `Perceiver`, or a model in training behind the same method."""

    def run(self, frame: Frame) -> Scene:
        """The scene of one frame."""
        ...


class AnswerSource(Protocol):
    """Anything that answers: `training.prompted.asking.Asker`, or another model behind the same method."""

    def ask(self, image_bgr: ImageBgr, query: Query) -> Answer:
        """The answer to one query about a picture."""
        ...


@contextmanager
def _kept(path: Path, settings: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], Callable[[dict[str, Any]], None]]]:
    """Records of an earlier, interrupted run of the same settings, and a function that adds one to the file.

    ``run.json`` has the settings of each file by its name: scenes and answers of one folder may come from different commands.
    """
    settings_path, kept = path.with_name("run.json"), []
    every = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.exists() else {}
    if path.exists() and path.stat().st_size:
        if not every:
            raise ConfigError(f"{path}: there is no run.json beside it to say how it was made; delete it or give another --out")
        before = every.get(path.name, every)  # earlier versions wrote the settings of one file, flat
        changed = sorted(name for name in {*settings, *before} if before.get(name) != settings.get(name))
        if changed:
            raise ConfigError(f"{path}: made with other settings ({', '.join(changed)} differ); delete it or give another --out")
        kept = list(read_lines(path, repair=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {name: value for name, value in every.items() if isinstance(value, dict)}
    settings_path.write_text(json.dumps({**known, path.name: settings}, indent=2) + "\n", encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:

        def add(record: dict[str, Any]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        yield kept, add


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
    perceiver: SceneSource | None = None
    with _kept(path, settings) as (records, add):
        kept = {record["key"]: record for record in records}
        for index in tqdm(range(len(source)), desc="evaluate", unit="frame"):
            sample, key = source.load(index), source.key(index)
            digest = sample_sha256(sample)
            record = kept.get(key)
            if record is None:
                frame = Frame(sample.image_bgr, stamp_ns=int(sample.meta.get("stamp_ns", 0)), source=key, index=index)
                if perceiver is None:
                    perceiver = open_perceiver()
                    perceiver.run(frame)  # first-run costs (allocation, kernels) are not the speed of a frame
                start = time.perf_counter()
                scene = perceiver.run(frame)
                wall_ms = (time.perf_counter() - start) * 1e3
                record = {**scene.to_json(), "key": key, "sample_sha256": digest, "wall_ms": round(wall_ms, 3)}
                add(record)
            elif record["sample_sha256"] != digest:
                raise InputError(f"{record['_where']}: {key} has changed since; delete {path} to start afresh")
            collector.add(key, sample, scene_from_json(record, key), record["wall_ms"], digest)


def predict_answers(
    source: Source,
    out: Path,
    settings: dict[str, Any],
    open_asker: Callable[[], AnswerSource],
    collector: Collector,
    tasks: Sequence[str],
) -> None:
    """Ask a model all queries of some tasks about a data set, picking up where an earlier run stopped.

    Args:
        source: the pictures.
        out: folder of ``answers.jsonl`` and ``run.json``.
        settings: what must be equal for earlier answers to be kept.
        open_asker: loads the model; called once, and only if there is a query left.
        collector: takes the scores.
        tasks: of `training.prompted.TASKS`.

    Raises:
        ConfigError: ``out`` holds answers of other settings.
        InputError: a picture has changed since it was asked about.
    """
    path = out / "answers.jsonl"
    asker: AnswerSource | None = None
    with _kept(path, settings) as (records, add):
        kept = {query_id(record): record for record in records}
        for index in tqdm(range(len(source)), desc="ask", unit="frame"):
            sample, key = source.load(index), source.key(index)
            digest = sample_sha256(sample)
            answered = []
            for query in queries_of(sample, tasks):
                record = kept.get((key, query.task, query.number))
                if record is None:
                    asker = asker or open_asker()
                    record = {
                        **asker.ask(sample.image_bgr, query).to_json(key, query.task, query.number),
                        "sample_sha256": digest,
                    }
                    add(record)
                elif record.get("sample_sha256") != digest:
                    raise InputError(f"{record['_where']}: {key} has changed since; delete {path} to start afresh")
                answered.append((query, answer_from_json(record, sample.size_wh)))
            if answered:
                collector.add_answers(key, sample, answered, digest)


def score_file(
    path: Path, source: Source, collector: Collector, kinds: Sequence[str], tasks: Sequence[str], allow_missing: bool
) -> None:
    """Score predictions that somebody else made.

    Scenes (`training.predictions`), answers (`training.prompted.answers`) and road graphs (`training.road_graphs`) may be mixed.

    Args:
        path: JSON lines; those with ``task`` are answers or graphs. Pictures are found by ``key``, else by ``source``.
        source: the labels.
        collector: takes the scores.
        kinds: element kinds to score; with any, every picture needs a scene.
        tasks: prompted tasks to score; with any, every query needs an answer. With ``topology``, every picture needs a graph.
        allow_missing: what has no line counts as empty instead.

    Raises:
        InputError: a malformed line, or a missing one.
    """
    scenes: dict[str, dict[str, Any]] = {}
    graphs: dict[str, dict[str, Any]] = {}
    answers: dict[tuple[str, str, int], dict[str, Any]] = {}
    for record in read_lines(path):
        key = str(record.get("key") or record.get("source") or "")
        if record.get("task") == TASK:
            graphs[key] = record
        elif "task" in record:
            answers[query_id(record)] = record
        else:
            scenes[key] = record
    needed = [lines for lines, wanted in ((scenes, kinds), (graphs, TASK in tasks)) if wanted]
    missing = [source.key(i) for i in range(len(source)) if any(source.key(i) not in lines for lines in needed)]
    if missing and not allow_missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(source)} pictures have no line, the first is {missing[0]!r} (the key or "
            "source of a line must equal it); --allow-missing scores them as empty"
        )
    collector.missing = len(missing)
    for index in tqdm(range(len(source)), desc="score", unit="frame"):
        sample, key = source.load(index), source.key(index)
        digest = sample_sha256(sample)
        if kinds:
            line = scenes.get(key)
            scene = Scene(sample.size_wh) if line is None else scene_from_json(line, line["_where"])
            collector.add(key, sample, scene, scene.timings.total_ms or None, digest)
        if TASK in tasks:
            line = graphs.get(key)
            graph = EMPTY if line is None else graph_from_json(line, line["_where"])
            collector.add_graph(key, sample, labelled_graph(sample), graph, digest)
        answered = []
        for query in queries_of(sample, tasks):
            line = answers.get((key, query.task, query.number))
            if line is None and not allow_missing:
                raise InputError(
                    f"{path}: no line answers query {query.number} of {query.task} about {key!r}; --write-queries lists all of "
                    "them, --allow-missing scores what is missing as empty"
                )
            collector.missing_answers += line is None
            answered.append((query, Answer() if line is None else answer_from_json(line, sample.size_wh)))
        if answered:
            collector.add_answers(key, sample, answered, digest)


def write_queries(path: Path, source: Source, tasks: Sequence[str]) -> int:
    """Write what is asked about a data set, a JSON line each, without what is right; returns how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for index in tqdm(range(len(source)), desc="queries", unit="frame"):
            for query in queries_of(source.load(index), tasks):
                file.write(json.dumps(query.to_json(source.key(index))) + "\n")
                count += 1
    return count
