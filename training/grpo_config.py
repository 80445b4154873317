"""Every setting of GRPO, in one dataclass; presets by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from getok_drive.errors import ConfigError
from training.rewards import RewardSettings
from training.sampling import Sampling

TASKS = ("driving", "grounding")
STAGES = ("placement", "movement")
CREDITS = ("answer", "element")


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """Settings of ``python -m training.grpo``.

    Attributes:
        task: ``driving`` (the scene), or ``grounding`` (boxes and masks of what a text names, the paper's tasks).
        stage: ``placement`` (propose turn) or ``movement`` (refine turn).
        steps: optimisation steps (rollouts and their updates).
        data: ``world``, or ``KIND:PATH`` of a reader in training/datasets (its training split).
        image_size_wh: the model's input, pixels; None: what the checkpoint was trained at.
        curriculum_steps: before this step, each prompt is the emptier of two pictures.
        prompts: pictures per process and step.
        group: answers a picture.
        learning_rate: constant after ``warmup_steps``; over the last ``decay_steps`` (0: never) it falls to 0 along a cosine.
        kl_weight: of the KL term to the checkpoint that the run starts from; 0 leaves the reference out.
        clip_low: PPO's clipping below 1.
        clip_high: and above.
        credit: ``answer``: one advantage for a whole answer, as in the paper; ``element``: each decision has its element's
            (`training.rewards.credit`), for the driving scene.
        normalise: divide advantages by their group's deviation; with ``credit=element`` by the step's root mean square.
        epochs: passes over the rollouts of a step.
        minibatches: updates a pass; with one update in all, the ratio is 1 and nothing is clipped.
        prompts_per_pass: pictures of one forward and backward.
        share_prefix: lay a picture's answers behind one prompt in one row (see training.policy); pays with large pictures.
        train_vision: whether the vision tower learns too.
        lora_rank: 0 trains the weights themselves; else adapters on every linear layer of what learns and the table's rows
            (`training.lora`), and the reference is the policy with these switched off, not a second copy of the weights.
        lora_alpha: the adapters' products are scaled by ``lora_alpha / lora_rank``.
        cell_labels: judge proposals that are not refined against labels at their cells' centres, the best that cells can say.
        sampling: temperatures, budgets, limits.
        rewards: constants and weights; on the command line ``rewards.NAME=0`` switches a reward off in every stage that has it.
        engine: who draws the answers: ``own``, ``vllm``, or ``auto`` (vLLM where it is installed and knows the model).
        pictures_every: steps between pictures of the answers (``samples/``, TensorBoard); 0: never.
        eval_every: steps between greedy evaluations on ``eval_images`` validation frames; 0: never.
    """

    task: str = "driving"
    stage: str = "placement"
    steps: int = 500
    data: str = "world"
    image_size_wh: tuple[int, int] | None = None
    curriculum_steps: int = 0
    prompts: int = 16
    group: int = 8
    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    warmup_steps: int = 0
    decay_steps: int = 0
    clip_norm: float = 1.0
    kl_weight: float = 0.01
    clip_low: float = 0.2
    clip_high: float = 0.2
    credit: str = "answer"
    normalise: bool = True
    epochs: int = 1
    minibatches: int = 1
    prompts_per_pass: int = 4
    share_prefix: bool = False
    train_vision: bool = True
    lora_rank: int = 0
    lora_alpha: int = 32
    cell_labels: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    engine: str = "auto"
    seed: int = 0
    threads: int = 0
    log_every: int = 1
    eval_every: int = 50
    eval_images: int = 32
    pictures_every: int = 50
    save_every: int = 50

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"task={self.task!r}: expected one of {', '.join(TASKS)}")
        if self.stage not in STAGES:
            raise ConfigError(f"stage={self.stage!r}: expected one of {', '.join(STAGES)}")
        if self.credit not in CREDITS:
            raise ConfigError(f"credit={self.credit!r}: expected one of {', '.join(CREDITS)}")
        if self.credit == "element" and self.task != "driving":
            raise ConfigError("credit=element: only the driving scene (task=driving) says which element earned what")
        if self.engine == "vllm" and not self.sampling.plain:
            raise ConfigError("sampling.last_kind, sampling.refine_proposals: vLLM draws whole proposals alone; set engine=own")
        if self.task != "driving" and self.sampling.refine_proposals:
            raise ConfigError("sampling.refine_proposals: only the driving scene (task=driving) is judged with its refinement")
        if self.group < 2 or min(self.prompts, self.epochs, self.minibatches, self.prompts_per_pass) < 1:
            raise ConfigError("group must be 2 or more; prompts, epochs, minibatches and prompts_per_pass 1 or more")
        if min(self.warmup_steps, self.decay_steps) < 0 or self.decay_steps > self.steps:
            raise ConfigError("warmup_steps and decay_steps must be 0 or more, decay_steps no more than steps")
        if min(self.log_every, self.save_every, self.eval_images) < 1:
            raise ConfigError("log_every, save_every and eval_images must be 1 or more; eval_every=0 switches evaluations off")
        if -(-self.prompts // self.prompts_per_pass) < self.minibatches:
            raise ConfigError(f"minibatches={self.minibatches} exceeds the passes of a step; lower prompts_per_pass")


PRESETS: dict[str, GrpoConfig] = {
    "tiny": GrpoConfig(steps=4, prompts=2, group=4, learning_rate=1e-3, prompts_per_pass=1, eval_every=0, save_every=2),
    "nano": GrpoConfig(steps=300, learning_rate=2e-5, warmup_steps=10, minibatches=2, threads=2),
}
