"""The logits processor that vLLM loads by name (``logits_processors=``): the grammar of each request; needs vLLM to import."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from training.vllm_engine import KEY, Masker


class GrammarProcessor(AdapterLogitsProcessor):
    """Masks by the grammar that a request carries in ``extra_args``; other requests are left alone."""

    def is_argmax_invariant(self) -> bool:
        """The mask can change the best token."""
        return False

    def new_req_logits_processor(self, params: Any) -> Masker | None:
        """The request's own processor."""
        about = (params.extra_args or {}).get(KEY)
        return None if about is None else Masker(about)
