"""transformers.TrainingArguments from what a recipe writes under `args`: refused if unknown, sensible if left out."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from transformers import TrainingArguments

from stillhouse.errors import RecipeError, nearest

# decided here, or without meaning where nothing is evaluated inside training
# fmt: off
_OWNED = frozenset({
    "output_dir", "seed", "data_seed", "ignore_data_skip", "remove_unused_columns", "label_names", "do_train",
    "do_eval", "do_predict", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object", "per_device_eval_batch_size",
    "prediction_loss_only", "batch_eval_metrics", "include_for_metrics", "metric_for_best_model",
    "greater_is_better", "load_best_model_at_end", "save_strategy", "save_only_model", "logging_strategy",
    "label_smoothing_factor", "train_sampling_strategy", "length_column_name", "dataloader_drop_last",
    "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers",
    "dataloader_pin_memory", "include_num_input_tokens_seen", "use_cache", "disable_tqdm",
    "auto_find_batch_size", "use_liger_kernel", "liger_kernel_config", "logging_nan_inf_filter",
    "restore_callback_states_from_checkpoint", "push_to_hub", "hub_model_id", "hub_strategy", "hub_token",
    "hub_private_repo", "hub_always_push", "hub_revision", "neftune_noise_alpha",
    "average_tokens_across_devices",
})
# fmt: on


def known_arguments() -> frozenset[str]:
    """The keys that `train: {args: ...}` may have: those of transformers.TrainingArguments that a recipe can decide."""
    return frozenset(TrainingArguments.__dataclass_fields__) - _OWNED


def settings(arguments: Mapping[str, Any], out: Path, seed: int) -> TrainingArguments:
    """Raises RecipeError for an unknown key or a value that cannot be one."""
    known = known_arguments()
    for name in arguments:
        if name not in known:
            raise RecipeError(f"train.args: no setting {name!r}; {_near(name, known)}")
    # one third of the library's checkpoint interval is lost at most, and a run of minutes is not slowed by saving
    given = {"save_steps": 150, "save_total_limit": 1, "report_to": "none", "use_cpu": not torch.cuda.is_available()}
    given |= {name: _plain(name, value) for name, value in arguments.items()}
    try:
        made = TrainingArguments(
            output_dir=str(out),
            seed=seed,
            disable_tqdm=True,
            logging_nan_inf_filter=False,  # a loss that is not finite ends the run, it is not papered over
            dataloader_pin_memory=False,
            **given,
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"train.args: {str(error).splitlines()[0]}; see transformers.TrainingArguments") from error
    if "logging_steps" not in arguments and made.max_steps > 0:
        made.logging_steps = max(1, made.max_steps // 100)
    return made


def schedule(made: TrainingArguments, sizes: Mapping[str, int]) -> int:
    """The number of micro-batches of the training; `made.max_steps` is set to its steps.

    Without `max_steps`, an epoch is one pass over the longest branch.
    """
    window = made.gradient_accumulation_steps
    if made.max_steps <= 0:
        longest = max(micro_batches(size, batch_size(made)) for size in sizes.values())
        total = max(1, math.ceil(made.num_train_epochs * longest))
        made.max_steps = math.ceil(total / window)
        return total
    return made.max_steps * window


def batch_size(made: TrainingArguments) -> int:
    """Records of one branch in one micro-batch, over all processes."""
    return made.per_device_train_batch_size * made.world_size


def micro_batches(records: int, size: int) -> int:
    """Those of one pass; the last may be smaller, so that a pass has each record once."""
    return math.ceil(records / size)


def _plain(name: str, value: Any) -> Any:
    # YAML reads 1e-3 as text; only 1.0e-3 is a number to it
    kinds = get_args(_HINTS[name]) or (_HINTS[name],)
    if isinstance(value, str) and float in kinds and str not in kinds:
        try:
            return float(value)
        except ValueError:
            raise RecipeError(f"train.args.{name}: {value!r} is not a number; write e.g. 1.0e-3") from None
    return value


def _near(name: str, known: frozenset[str]) -> str:
    said = nearest(name, known)
    return said if said.startswith("did") else f"see transformers.TrainingArguments for the {len(known)} there are"


_HINTS = get_type_hints(TrainingArguments)
