"""What a folder holds that is given as a checkpoint: a model, an adapter, weights that are quantized."""

from __future__ import annotations

import os
from pathlib import Path

from compiler.diagnostics import UserError, log
from compiler.files import checkpoint_root, read_json_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PICKLES = ("pytorch_model*.bin", "model*.bin", "*.pth", "model*.pt", "*.ckpt")
TRAINER_FILES = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "trainer_state.json")


def check_folder(folder: Path) -> None:
    """Refuse what is no folder, one that may not be read, and an adapter without its model."""
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:
        raise UserError(f"no folder {folder}: -m expects the folder of a Hugging Face checkpoint") from None
    except NotADirectoryError:
        raise UserError(f"{folder} is a file: -m expects the folder of a Hugging Face checkpoint") from None
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    if not os.path.lexists(folder / "config.json"):
        refuse_adapter(folder)
        files = sorted(folder.glob("*.gguf"))
        hint = f"give -m {files[0]}" if files else "is it a Hugging Face checkpoint?"
        raise UserError(f"no config.json in {folder}: {hint}")


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder that has an adapter and no model."""
    if not os.path.lexists(folder / ADAPTER_CONFIG):
        return
    settings = read_json_object(folder / ADAPTER_CONFIG, checkpoint_root(folder))
    kind, base = (str(settings.get(key, "unknown"))[:100] for key in ("peft_type", "base_model_name_or_path"))
    raise UserError(
        f"{folder} holds an adapter ({kind!r}) of the model {base!r} and not the model itself\n"
        "merge them first, with peft: model.merge_and_unload().save_pretrained(NEW)"
    )


def note_adapter(folder: Path) -> None:
    """Tell that an adapter beside a model is not applied."""
    found = [name for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if os.path.lexists(folder / name)]
    if found:
        log.warning("%s: the adapter (%s) is left out; merge it with peft to have it in", folder, found[-1])


def packed_by_bitsandbytes(folder: Path, how: str) -> UserError:
    return UserError(
        f"{folder}: the weights are quantized by bitsandbytes ({how}), which is not supported\n"
        "give the float checkpoint they were made from: -q quantizes it"
    )


def adapter_not_merged(folder: Path, how: str) -> UserError:
    return UserError(
        f"{folder}: the weights have an adapter beside them ({how})\n"
        "merge it into them first, with peft: model.merge_and_unload().save_pretrained(NEW)"
    )


def without_weights(folder: Path) -> str:
    """Why a folder without safetensors of a model is refused."""
    refuse_adapter(folder)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder} has its weights as pickle only ({pickles[0]}), which can run code when it is read\n"
            "write them as safetensors first: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
        )
    return f"no weights in {folder}: neither {SINGLE_FILE} nor {INDEX_FILE}{_whose(folder)}"


def _whose(folder: Path) -> str:
    """What else the folder may be, and where the weights are then."""
    inner = sorted(path.parent for name in (SINGLE_FILE, INDEX_FILE) for path in folder.glob(f"*/{name}"))
    if inner:
        return f"\nthere are some in {inner[-1]}: give that to -m"
    trainer = [name for name in TRAINER_FILES if os.path.lexists(folder / name)]
    if trainer:
        return f"\n{trainer[0]} is what a trainer keeps to go on: give the folder that it saved the model to"
    return ""
