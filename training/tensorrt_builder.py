"""TensorRT's parser and builder behind one door: ``tensorrt`` 10 and 11, and ``tensorrt_rtx``, have nearly the same one.

Networks are strongly typed throughout: the graph says the precision, and TF32 is switched off, so that single means single.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from getok_drive.errors import ConfigError

Lengths = tuple[int, int, int]  # least, usual, greatest
_INSTALL = (
    "pip install 'getok-drive[tensorrt]' brings TensorRT for RTX, which compiles on any machine; "
    "pip install tensorrt, or JetPack, brings the one that compiles for the GPU at hand (docs/tensorrt.md)"
)
_AMPERE = 8.0  # compute capability
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUDA driver API, CUdevice_attribute


@dataclass(frozen=True, slots=True)
class Compiled:
    """One engine.

    Attributes:
        plan: the serialised engine.
        products: matrix products and convolutions of the network, counted by the type of their result.
        profiles: for each optimisation profile the lengths of the dynamic axes, by name; none where all is fixed.
    """

    plan: bytes
    products: Mapping[str, int]
    profiles: tuple[Mapping[str, Lengths], ...]


class Compiler:
    """An installed TensorRT.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``, imported.
    """

    NAMES = ("tensorrt", "tensorrt_rtx")

    def __init__(self, module: Any) -> None:
        self._trt = module
        self.name: str = module.__name__
        self.version: str = module.__version__
        if not self._portable and int(self.version.split(".")[0]) not in (10, 11):
            raise ConfigError(f"tensorrt {self.version} is not supported, only 10 and 11; {_INSTALL}")

    @classmethod
    def find(cls, name: str | None = None) -> Compiler:
        """The one of that name, or else the first of `NAMES` that is installed.

        Raises:
            ConfigError: none is; says what to install.
        """
        reasons = []
        for candidate in (name,) if name else cls.NAMES:
            try:
                return cls(importlib.import_module(candidate))
            except (ImportError, OSError, RuntimeError) as error:  # a wheel without its libraries says so in its own ways
                reasons.append(f"{candidate}: {error}")
        raise ConfigError(f"no TensorRT here ({'; '.join(reasons)}). {_INSTALL}")

    @property
    def _portable(self) -> bool:
        """Whether it compiles without the GPU that will run the engine."""
        return self.name == "tensorrt_rtx"

    def capabilities(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Compute capabilities that engines are compiled for, such as ``("8.6",)``.

        Args:
            wanted: by the user; none: all known from Ampere on (Turing has no single-precision products in TensorRT for RTX),
                or that of the GPU at hand.

        Raises:
            ConfigError: when one cannot be compiled for here.
        """
        known = self._known() if self._portable else _gpu_capability()
        if unknown := [one for one in wanted if one not in known]:
            raise ConfigError(
                f"--compute-capability {', '.join(unknown)}: {self.name} {self.version} has {', '.join(known)} here"
            )
        if not wanted:
            return tuple(one for one in known if float(one) >= _AMPERE) if self._portable else known
        return tuple(sorted(set(wanted), key=known.index))

    def _known(self) -> tuple[str, ...]:
        names = [name[2:] for name in dir(self._trt.ComputeCapability) if name.startswith("SM")]
        return tuple(f"{number // 10}.{number % 10}" for number in sorted(map(int, names)))

    def compile(
        self, onnx: Path, profiles: Sequence[Mapping[str, Lengths]], capabilities: Sequence[str], timing_cache: Path
    ) -> Compiled:
        """Parse and compile one graph.

        Args:
            onnx: the graph.
            profiles: lengths of the dynamic axes, one mapping for each optimisation profile.
            capabilities: see `capabilities`.
            timing_cache: file of measured timings, read where it is there and written; ``tensorrt`` only.

        Raises:
            ConfigError: with TensorRT's own words.
        """
        trt = self._trt
        logger = _make_logger(trt)
        try:
            builder = trt.Builder(logger)
        except TypeError as error:  # what the bindings raise where there is no driver
            raise ConfigError(f"{self.name} {self.version} cannot start: {'; '.join(logger.errors) or error}") from error
        network, parser = self._parse(builder, logger, onnx)
        config = builder.create_builder_config()
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        used = _add_profiles(builder, config, network, profiles, onnx)
        if self._portable:
            targets = self.capabilities(capabilities)
            config.num_compute_capabilities = len(targets)
            for index, target in enumerate(targets):
                config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + target.replace(".", "")), index)
        else:
            data = timing_cache.read_bytes() if timing_cache.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(data), ignore_mismatch=False)
        products = _products(trt, network)
        plan = builder.build_serialized_network(network, config)
        del parser  # holds the weights that the network points to
        if plan is None:
            raise ConfigError(f"{onnx}: {self.name} {self.version} cannot compile it:\n" + "\n".join(logger.errors[-8:]))
        if not self._portable:
            try:
                timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
            except OSError as error:
                raise ConfigError(f"{timing_cache} cannot be written: {error.strerror}; make room") from error
        return Compiled(bytes(plan), products, used)

    def _parse(self, builder: Any, logger: Any, onnx: Path) -> tuple[Any, Any]:
        trt = self._trt
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # where it is gone, there is no other kind
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, logger)
        if parser.parse_from_file(str(onnx)):
            return network, parser
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = [f"  {e.node_operator()} {e.node_name()!r}: {e.desc()}" for e in errors] or logger.errors
        advice = ""
        if any(error.node_operator() == "GroupQueryAttention" for error in errors):
            advice = (
                "\nThe bundle's graphs are ONNX Runtime's; write them again with "
                f"python -m training.export {onnx.parent} --out FOLDER --graphs standard"
            )
        raise ConfigError(f"{onnx}: {self.name} {self.version} cannot parse it:\n" + "\n".join(said) + advice)


def _make_logger(trt: Any) -> Any:
    """A logger that keeps errors and prints nothing: what matters goes into the exception."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return Logger()


def _add_profiles(
    builder: Any, config: Any, network: Any, profiles: Sequence[Mapping[str, Lengths]], onnx: Path
) -> tuple[Mapping[str, Lengths], ...]:
    """Add an optimisation profile for each mapping; returns those used, without the axes that the graph has not."""
    axes = {}  # by input and axis
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        for axis, length in enumerate(tensor.shape):
            if length < 0:
                axes[tensor.name, axis] = str(tensor.get_dimension_name(axis))
    names = set(axes.values())
    if unknown := names - set(profiles[0]):
        raise ConfigError(
            f"{onnx}: unknown dynamic axes {sorted(unknown)}, expected {sorted(profiles[0])}; export the bundle again"
        )
    if not names:
        return ()
    for lengths in profiles:
        profile = builder.create_optimization_profile()
        for tensor in (network.get_input(index) for index in range(network.num_inputs)):
            if -1 in tuple(tensor.shape):
                shapes = [
                    tuple(
                        lengths[axes[tensor.name, axis]][which] if length < 0 else length
                        for axis, length in enumerate(tensor.shape)
                    )
                    for which in range(3)
                ]
                profile.set_shape(tensor.name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise ConfigError(f"{onnx}: TensorRT refuses the lengths {dict(lengths)}")
    return tuple({name: lengths[name] for name in sorted(names)} for lengths in profiles)


def _products(trt: Any, network: Any) -> dict[str, int]:
    kinds = (trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.CONVOLUTION)
    layers = (network.get_layer(index) for index in range(network.num_layers))
    types = [str(layer.get_output(0).dtype).rpartition(".")[2] for layer in layers if layer.type in kinds]
    return {kind: types.count(kind) for kind in sorted(set(types))}


def _gpu_capability() -> tuple[str, ...]:
    """That of the first GPU, asked of the driver.

    Raises:
        ConfigError: there is none.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        numbers = []
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
            number, device = ctypes.c_int(), ctypes.c_int()
            codes = (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0))
            if any(codes) or cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
                raise OSError(f"the driver answers {codes}")
            numbers.append(number.value)
    except OSError as error:
        raise ConfigError(f"tensorrt compiles for the GPU at hand, and there is none: {error}. {_INSTALL}") from error
    return (f"{numbers[0]}.{numbers[1]}",)
