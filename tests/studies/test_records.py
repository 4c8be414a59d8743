"""Each study, run on the committed record, finds every row it wants: nothing is measured anew."""

import runpy
import sys

import numpy as np
import pytest
import torch

from pefthelpers.paths import data_dir
from studies import encoder_study, engine

STUDIES = {
    "alpha_study": ["alpha_study"],
    "budget_curves": ["budget_curves"],
    "encoder_study": ["encoder_study", "sweep_encoder"],
    "kitchen_gates": ["kitchen_gates"],
    "laptop_prefix_study": ["laptop_prefix_study"],
    "laptop_style_study": ["laptop_style_study"],
    "lora_study": ["lora_study"],
    "merge_study": ["merge_study"],
    "merge_study laptop": ["merge_smollm2"],
    "prefix_stability": ["prefix_stability"],
    "prefix_study": ["prefix_study"],
    "qlora_study kitchen": ["qlora_kitchen"],
    "qlora_study smollm2": ["qlora_smollm2"],
    "qlora_tables": ["qlora_errors", "qlora_peaks"],
    "retention_curves": ["retention_curves"],
    "retention_curves smollm2": ["retention_smollm2"],
    "seq2seq_gates": ["seq2seq_gates"],
    "sweep decoder": ["sweep_decoder"],
    "sweep seq2seq": ["sweep_seq2seq"],
    "sweep_cost": ["sweep_cost"],
    "sweep_smollm2": ["sweep_smollm2"],
}


@pytest.mark.parametrize("command", STUDIES)
def test_a_study_resumes_from_its_record_and_uses_every_row(command, monkeypatch, capsys):
    used, searched, module, *arguments = {}, [], *command.split()

    def recorded(self, run, **key):
        found = self.find(**key)
        assert found, f"{self.path.name} has no row {key}"
        used.setdefault(self.path.stem, []).append(found[0])
        if key.get("seed") == 0:
            searched.append({name: value for name, value in key.items() if name != "seed"})
        return found[0]

    monkeypatch.setattr(engine.Study, "measure", recorded)
    monkeypatch.setattr(engine, "quiet_on_one_thread", lambda: None)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.delitem(sys.modules, f"studies.{module}", raising=False)
    try:
        runpy.run_module(f"studies.{module}", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
    assert list(used) == STUDIES[command]
    for name, rows in used.items():
        record = engine.Study(data_dir() / "results" / f"{name}.json").rows
        # More seeds of a rate that was searched stay: of one that ties, which an older rule chose.
        known = lambda row: any(key.items() <= row.items() for key in searched)
        assert not [row for row in record if row not in rows and not known(row)], name
    assert "|" in capsys.readouterr().out


def test_hexadecimal_digits_keep_every_sentence():
    right = torch.rand(2006, generator=torch.Generator().manual_seed(0)) < 0.8
    digits = encoder_study.to_hex(right)
    assert len(digits) == 502
    packed = np.frombuffer(bytes.fromhex(digits), np.uint8)
    assert np.array_equal(np.unpackbits(packed, count=2006).astype(bool), right.numpy())
