"""Answers judged through the connection: the same verdict as in the notebook, whatever a learner hands in."""

import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from peftroom import host, learner, sandbox
from peftroom.carry import Channel, Foreign, packed, unpacked
from support.answers import CHECKS, RIGHT, WRONG, LoRALinear

ANSWERS = [(name, answer) for name in RIGHT for answer in RIGHT[name]]
ANSWERS += [(name, answer) for name in WRONG for answer, _ in WRONG[name]]
# What only the learner's process holds, such as a generator or a class, is not the same object at the judge's.
CLASSES = {"LoRALinear": LoRALinear} | {k: v for k, v in vars(nn).items() if isinstance(v, type)}


def shell(answer):
    """Return what stands for the prepared IPython shell: its one cell hands the answer in."""
    names = {}

    def run_cell(source):
        names["check"].made(answer)
        return SimpleNamespace(error_before_exec=None, error_in_exec=None)

    return SimpleNamespace(user_ns=names, run_cell=run_cell)


def through(name, answer, monkeypatch):
    """Return the verdict on an answer that stays in a thread of its own."""
    monkeypatch.setattr(sandbox, "excess", lambda seconds: "")
    here, there = socket.socketpair()
    row = {"check": "check", "name": "made", "answer": "answer", "own": [], "cells": ["made"]}

    def serve():
        try:
            learner.serve(shell(answer), row, Channel(there))
        except EOFError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    channel = host.Learner(here, 30.0, CLASSES)
    first = channel.wait()
    assert not first["error"]
    given = host.Called(channel) if first["function"] else channel.read_value(first["answer"])
    found = CHECKS[name](given)
    here.close()
    thread.join(5)
    return found


@pytest.mark.parametrize(("name", "answer"), ANSWERS, ids=[name for name, _ in ANSWERS])
def test_an_answer_that_stays_in_its_process_gets_the_verdict_of_the_notebook(
    name, answer, monkeypatch
):
    found, direct = through(name, answer, monkeypatch), CHECKS[name](answer)
    assert found.status == direct.status
    assert found.message == direct.message or "Trained here" in direct.message


@pytest.mark.parametrize(
    "value",
    [
        None, ..., True, 3, 10**30, 2.5, float("inf"), "text", [1, (2, {3})], {"a": [1.5], 2: None},
        range(3), torch.arange(6).view(2, 3), torch.ones(2, dtype=torch.bfloat16), torch.zeros(0),
        torch.tensor(True), np.float32(1.5), np.arange(4.0), torch.ones(2, requires_grad=True),
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values_arrive_as_they_were(value):
    found = unpacked(packed(value), {})
    value = list(value) if isinstance(value, range) else value
    if isinstance(value, torch.Tensor | np.ndarray):
        assert (found == value).all() and found.dtype == value.dtype and found.shape == value.shape
    else:
        assert found == value and type(found) is type(getattr(value, "item", lambda: value)())


def test_what_holds_code_arrives_as_a_name():
    class Sly:
        def __reduce__(self):
            return (print, ("run at the judge's",))

    for value in (Sly(), print, open, Sly, object(), threading.Lock()):
        found = unpacked(packed(value), {})
        assert isinstance(found, Foreign) and type(found).__name__ == type(value).__name__
    own: list = []
    own.append(own)
    assert isinstance(unpacked(packed(own), {}), Foreign)
