import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

from distill3d.runtime.device import (
    _backend,
    choose_accelerator,
    choose_precision,
    keep_threads,
    kernel_backend,
    set_threads,
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    _backend.cache_clear()
    yield
    _backend.cache_clear()


def test_cpu_tensors_take_the_compiled_kernels_with_a_reason(caplog):
    with caplog.at_level(logging.DEBUG, "distill3d"):
        assert kernel_backend(torch.device("cpu")) == kernel_backend("cpu") == "numba"
    assert [record.getMessage() for record in caplog.records] == ["kernels on cpu: numba, the fastest here"]


def test_other_devices_have_their_own_or_the_torch_twin():
    assert kernel_backend("mps") == "torch"
    assert kernel_backend("cuda:1") == "cuda"


def test_the_environment_or_the_caller_may_name_one(monkeypatch):
    assert kernel_backend("cpu", "torch") == "torch"
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    assert kernel_backend("cpu") == "torch"


def test_one_that_cannot_run_there_is_refused(monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", "cuda")
    with pytest.raises(
        ValueError, match=r"DISTILL3D_KERNELS='cuda' cannot run on cpu; choose one of auto, numba, torch"
    ):
        kernel_backend("cpu")


@pytest.mark.parametrize(
    ("setting", "accelerator", "chosen"),
    [
        (None, "cpu", "32-true"),
        ("auto", "mps", "32-true"),
        (32, "cpu", "32-true"),
        ("16-mixed", "cpu", "32-true"),
        (16, "cpu", "32-true"),
        ("bf16-mixed", "cpu", "bf16-mixed"),
        (16, "cuda", "16-mixed"),
        ("bf16", "cuda", "bf16-mixed"),
    ],
)
def test_precision(setting, accelerator, chosen):
    assert choose_precision(setting, accelerator) == chosen


def test_the_accelerator_is_what_there_is(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.DEBUG, "distill3d"):
        assert choose_accelerator("auto") == choose_accelerator(None) == choose_accelerator("cpu") == "cpu"
    assert "CUDA" in caplog.records[0].getMessage()
    with pytest.raises(ValueError, match=r"trainer\.accelerator='gpu': .*; use cpu or auto"):
        choose_accelerator("gpu")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert choose_accelerator("auto") == choose_accelerator("gpu") == "cuda"
    assert choose_precision("auto", "cuda") == "16-mixed"


def test_threads_follow_the_environment(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert set_threads() == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_keeps_the_threads_of_its_checkpoint_or_says_that_the_bits_change(monkeypatch, caplog):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(1)
        keep_threads(2)
        assert torch.get_num_threads() == 2
        for told in (None, 2, -1, 10**9):
            keep_threads(told)
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        with caplog.at_level(logging.WARNING, "distill3d"):
            keep_threads(2)
        assert torch.get_num_threads() == 1 and "not to the same bits" in caplog.text
    finally:
        torch.set_num_threads(before)


ALLOCATIONS = """
import resource
from distill3d.runtime.device import keep_freed_memory

def new_pages_mib():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _ = [b"1" * 24 * 2**20 for _ in range(4)]  # 96 MiB
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**20

print(keep_freed_memory(), min(new_pages_mib() for _ in range(4)))
"""


def test_glibc_keeps_freed_memory_for_the_next_step_unless_the_environment_says_otherwise():
    def kept_and_new_pages(**variables: str) -> list[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        command = [sys.executable, "-c", ALLOCATIONS]
        return subprocess.run(command, env=clean | variables, capture_output=True, text=True, check=True).stdout.split()

    kept, new_mib = kept_and_new_pages()
    assert kept == str(platform.libc_ver()[0] == "glibc")
    assert kept == "False" or float(new_mib) < 20
    kept, new_mib = kept_and_new_pages(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False" and float(new_mib) > 60
