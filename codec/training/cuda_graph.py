"""RecordedSteps: training steps as one CUDA graph, for codecs whose steps are many small kernels."""

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from codec.errors import ConfigError
from codec.learned_codec import LearnedCodec

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class RecordedSteps(Callback):
    """Records forward and backward pass of a step with the first batch, and replays them from then on.

    A context prior's step is tens of thousands of kernels, each quicker than Python can ask for it; replayed, none
    is asked for. (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) A batch of another size is not
    replayed. Raises ConfigError where a step needs what a graph cannot hold, as a codec on the CPU in its middle.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.recorded = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LearnedCodec, batch: Tensor, batch_idx: int
    ) -> None:
        if self.recorded:
            return
        self.recorded = True
        if not isinstance(batch, Tensor):
            raise _cannot(f"its batches are {type(batch).__name__}")
        dtype = _DTYPES.get(trainer.precision)
        step = _Step(pl_module)
        # Steps that are made only to be recorded leave nothing behind: no statistics, no drawn numbers.
        state = torch.cuda.get_rng_state()
        buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}
        try:
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None, cache_enabled=False):
                replayed = torch.cuda.make_graphed_callables(step, (batch,), allow_unused_input=True)
        except RuntimeError as error:
            raise _cannot(str(error).splitlines()[0]) from error
        torch.cuda.set_rng_state(state)
        for name, buffer in pl_module.named_buffers():
            buffer.copy_(buffers[name])
        shape, as_written = batch.shape, pl_module.trained_terms

        def terms(batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            if batch.shape != shape:
                return as_written(batch)
            loss, *values = replayed(batch)
            return loss, dict(zip(step.names, values, strict=True))

        pl_module.trained_terms = terms

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vars(pl_module).pop("trained_terms", None)


class _Step(nn.Module):
    """`codec.trained_terms` as tensors alone, which is what a graph gives."""

    def __init__(self, codec: LearnedCodec) -> None:
        super().__init__()
        self.codec = codec
        self.names: list[str] = []

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        loss, shown = self.codec.trained_terms(batch)
        self.names = list(shown)
        return loss, *shown.values()


def _cannot(why: str) -> ConfigError:
    return ConfigError(
        "strategy.cuda_graph", True, f"a step of this codec cannot be recorded ({why}): leave it false"
    )
