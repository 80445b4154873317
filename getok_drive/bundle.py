"""Bundles: a model in a folder; its ``contract.json`` says all that the runtime must agree on. Nothing is ever unpickled.

`Bundle.load` checks the contract against this runtime (token table, prompts) and every file against its SHA-256, and refuses
with a `BundleError` that names the field or file. A bundle's identity is the SHA-256 of its contract, which names all the rest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from getok_drive import runtime
from getok_drive.errors import BundleError, ConfigError, InputError
from getok_drive.preprocess import Preprocessor
from getok_drive.runtime.backend import Backend, Geometry
from getok_drive.runtime.decoding import Prompt
from getok_drive.strict_json import read_dataclass
from getok_drive.tokens import prompts
from getok_drive.tokens.confidence import Calibration
from getok_drive.tokens.elements import KINDS
from getok_drive.tokens.limits import Limits
from getok_drive.tokens.positions import RULES, PositionSpec
from getok_drive.tokens.vocab import GRID_SIZE, TOKENS

FORMAT = 2
BUILT_IN = Path(__file__).parent / "bundles"
CONTRACT = "contract.json"
_MOST_CONTRACT_BYTES = 4 << 20
_AGAIN = "export the bundle again with this version of getok-drive"
_MODEL_SUFFIXES = (".onnx", ".data", ".npy", ".safetensors", ".json", ".engine")  # what a backend might read


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """The token table that the model was trained with: its texts in order, and where it begins in the model's vocabulary.

    ``offset_rounds`` are written after each point, and the model is asked for the first of them: ``decided_rounds`` says for how
    many, by element kind.
    """

    grid_size: int
    offset_rounds: int
    decided_rounds: dict[str, int]
    first_token_id: int
    table: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The one input size and the normalisation; see `Preprocessor`."""

    size_wh: tuple[int, ...]
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    mean_rgb: tuple[float, ...]
    std_rgb: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """The conversation's fixed parts as model token ids, and `prompts.prompt_hash` of the texts they come from."""

    sha256: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    refine: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CalibrationSpec:
    """See `Calibration`."""

    temperature: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingData:
    """One data set that the model has seen, and on what terms it may be used."""

    name: str
    terms: str


@dataclass(frozen=True, slots=True)
class Contract:
    """``contract.json``. Every field must be there, and no other.

    Attributes:
        format: of this file; `FORMAT`.
        name: the bundle's.
        git_commit: of the code that exported it.
        tokens, image, prompt, model: what the runtime must agree on.
        calibration: of the confidences, by element kind.
        least_confidence: elements below it are left out unless somebody asks for them, by element kind; where F1 is greatest.
        training: data sets and their terms.
        files: SHA-256 (hexadecimal) of every file beside the contract.
    """

    format: int
    name: str
    git_commit: str
    tokens: TokenSpec
    image: ImageSpec
    prompt: PromptSpec
    model: Geometry
    calibration: dict[str, CalibrationSpec]
    least_confidence: dict[str, float]
    training: tuple[TrainingData, ...]
    files: dict[str, str]

    def to_json(self) -> str:
        """The text of ``contract.json``; the same contract gives the same text."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded and verified bundle.

    Attributes:
        folder: where its files are.
        contract: what they are.
        sha256: of ``contract.json``; it stands in every output.
    """

    folder: Path
    contract: Contract = field(repr=False)
    sha256: str

    @classmethod
    def load(cls, where: str | Path, verify_files: bool = True) -> Bundle:
        """Load and verify.

        Args:
            where: a folder, or the name of a built-in bundle.
            verify_files: whether to compare every file's SHA-256 (a few ten milliseconds for a small model).

        Raises:
            BundleError: names the field or file that does not match, and what to do.
        """
        folder = _find(where)
        path = folder / CONTRACT
        try:
            if path.stat().st_size > _MOST_CONTRACT_BYTES:
                raise BundleError(f"larger than {_MOST_CONTRACT_BYTES} bytes; this is no contract")
            data = path.read_bytes()
            values = json.loads(data)
            if isinstance(values, dict) and (found := values.get("format", FORMAT)) != FORMAT:
                raise BundleError(f"format is {found}, this runtime reads {FORMAT}; {_AGAIN}")
            contract = read_dataclass(Contract, values, "contract")
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}; is {folder} a bundle?") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path}: not JSON: {error}") from error
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        bundle = cls(folder, contract, hashlib.sha256(data).hexdigest())
        bundle._check_agreement()
        if verify_files:
            bundle._check_files()
        return bundle

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.contract.name

    @property
    def prompt(self) -> Prompt:
        """The conversation's fixed parts for the decoder."""
        prompt = self.contract.prompt
        return Prompt(prompt.before, prompt.after, prompt.refine, self.contract.tokens.first_token_id)

    @property
    def calibration(self) -> dict[str, Calibration]:
        """Calibration of the confidences, by element kind."""
        return {kind: Calibration(spec.temperature, spec.bias) for kind, spec in self.contract.calibration.items()}

    @property
    def position_spec(self) -> PositionSpec:
        """Where a conversation's tokens stand."""
        contract = self.contract
        before, first = len(contract.prompt.before), contract.tokens.first_token_id
        return PositionSpec(contract.model.position_rule, before, contract.model.merged_hw, first)

    def preprocessor(self) -> Preprocessor:
        """A new preprocessor for this model's input."""
        image = self.contract.image
        width, height = image.size_wh
        return Preprocessor(
            (width, height), image.patch_size, image.merge_size, image.temporal_patch_size, image.mean_rgb, image.std_rgb
        )

    def capacity(self, limits: Limits) -> int:
        """Positions that a conversation needs at most."""
        prompt, rounds = self.contract.prompt, self.contract.tokens.offset_rounds
        text = len(prompt.before) + len(prompt.after) + len(prompt.refine)
        return text + self.contract.model.num_visual_tokens + limits.max_propose_tokens + limits.max_refine_tokens(rounds)

    def open_backend(self, name: str = "onnx", limits: Limits | None = None, threads: int = 0) -> Backend:
        """Load the model into a backend.

        Args:
            name: a key of `runtime.BACKENDS`.
            limits: of the scenes, which fix the size of the buffers.
            threads: CPU threads; 0 lets the backend choose.

        Raises:
            ConfigError: on an unknown name.
            BackendError: when the backend cannot be loaded.
        """
        capacity = self.capacity(limits or Limits())
        return runtime.open_backend(name, self.folder, self.contract.model, self.position_spec, capacity, threads)

    def _check_agreement(self) -> None:
        """Compare the contract with this runtime and with itself."""
        contract, path = self.contract, self.folder / CONTRACT

        def require(condition: bool, what: str) -> None:
            if not condition:
                raise BundleError(f"{path}: {what}")

        tokens, image, model, prompt = contract.tokens, contract.image, contract.model, contract.prompt
        require(tokens.grid_size == GRID_SIZE, f"tokens.grid_size is {tokens.grid_size}, this runtime has {GRID_SIZE}; {_AGAIN}")
        require(1 <= tokens.offset_rounds <= 8, f"tokens.offset_rounds is {tokens.offset_rounds}, expected 1..8")
        require(
            set(tokens.decided_rounds) == set(KINDS), f"tokens.decided_rounds: expected one number each for {', '.join(KINDS)}"
        )
        for kind, decided in tokens.decided_rounds.items():
            most = tokens.offset_rounds
            require(1 <= decided <= most, f"tokens.decided_rounds.{kind} is {decided}, expected 1..{most}")
        for index, (theirs, ours) in enumerate(zip(tokens.table, TOKENS, strict=False)):
            require(theirs == ours, f"tokens.table[{index}] is {theirs}, this runtime has {ours}; {_AGAIN}")
        require(len(tokens.table) == len(TOKENS), f"tokens.table has {len(tokens.table)} tokens, not {len(TOKENS)}; {_AGAIN}")
        require(
            prompt.sha256 == prompts.prompt_hash(), f"prompt.sha256 differs: the model was trained on other prompts; {_AGAIN}"
        )
        in_vocabulary = 0 <= tokens.first_token_id <= model.vocab_size - len(TOKENS)
        require(
            in_vocabulary, f"tokens.first_token_id {tokens.first_token_id} does not fit into model.vocab_size {model.vocab_size}"
        )
        for name in ("before", "after", "refine"):
            ids = getattr(prompt, name)
            require(bool(ids) and all(0 <= i < model.vocab_size for i in ids), f"prompt.{name} holds no ids of the vocabulary")
        least = contract.least_confidence
        require(set(least) == set(KINDS), f"least_confidence: expected one number each for {', '.join(KINDS)}")
        require(all(0 <= value <= 1 for value in least.values()), f"least_confidence is {least}, expected numbers in 0..1")
        unknown = set(contract.calibration) - set(KINDS)
        require(not unknown, f"calibration has unknown kinds {sorted(unknown)}; expected {', '.join(KINDS)}")
        for kind, spec in contract.calibration.items():
            require(spec.temperature > 0, f"calibration.{kind}.temperature is {spec.temperature}, expected a number above 0")
        for name in ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "rope_theta", "merge_size"):
            require(0 < getattr(model, name) <= 1 << 24, f"model.{name} is {getattr(model, name)}, which is out of range")
        require(len(image.size_wh) == 2, f"image.size_wh is {image.size_wh}, expected a width and a height")
        require(max(image.size_wh) <= 1 << 14, f"image.size_wh is {image.size_wh}, which is out of range")
        require(model.position_rule in RULES, f"model.position_rule is {model.position_rule!r}, expected {' or '.join(RULES)}")
        try:
            preprocessor = self.preprocessor()
        except (ConfigError, InputError, ValueError) as error:
            raise BundleError(f"{path}: image: {error}") from error
        given = (model.grid_hw, model.merge_size, model.patch_dim)
        needed = (preprocessor.grid_hw, preprocessor.merge_size, preprocessor.patch_dim)
        require(given == needed, f"model.grid_hw, merge_size, patch_dim are {given}, but image gives {needed}")
        require(
            sum(model.mrope_section) * 2 == model.head_dim, f"model.mrope_section {model.mrope_section} must sum to head_dim / 2"
        )

    def _check_files(self) -> None:
        for name, expected in self.contract.files.items():
            path = self.folder / name
            if Path(name).name != name or name in ("", ".", "..", CONTRACT):
                raise BundleError(f"{self.folder / CONTRACT}: files names {name!r}; only plain file names are allowed")
            if not path.is_file():
                raise BundleError(f"{path} is missing; copy the whole bundle folder")
            if file_sha256(path) != expected:
                raise BundleError(f"{path} is not the file that the contract was written for (SHA-256 differs); copy it again")
        for path in self.folder.iterdir():
            if path.suffix in _MODEL_SUFFIXES and path.name not in (CONTRACT, *self.contract.files):
                raise BundleError(f"{path} is not named in the contract; remove it, or export the bundle again")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: BinaryIO) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def built_in() -> tuple[str, ...]:
    """Names of the bundles that come with the package."""
    return tuple(sorted(path.parent.name for path in BUILT_IN.glob(f"*/{CONTRACT}")))


def _find(where: str | Path) -> Path:
    if isinstance(where, str) and where in built_in():
        return BUILT_IN / where
    folder = Path(os.path.expanduser(where))  # noqa: PTH111 (a parameter file is read by no shell; this never raises)
    if not folder.is_dir():
        names = ", ".join(built_in()) or "none"
        raise BundleError(f"no bundle {str(where)!r}: neither a folder nor the name of a built-in bundle ({names})")
    return folder
