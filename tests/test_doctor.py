"""``wscl-embed doctor`` on this installation, and on ones that are spoilt as people's are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wscl_embed.doctor import machine, packages
from wscl_embed.doctor.finding import Finding, in_new_python

TORCHVISION = """
raise RuntimeError("operator torchvision::nms does not exist")
"""
# As much of torch as the examination of GPUs calls: a number of them, each with 80 GiB, on which 20 products of 8192 x
# 8192 take 100 ms, with bfloat16 on the first alone.
TORCH_WITH_GPUS = """
import types
bfloat16, float16, COUNT = "torch.bfloat16", "torch.float16", {count}

class Matrix:
    def __matmul__(self, other):
        return self

class Event:
    def __init__(self, enable_timing):
        assert enable_timing
    def record(self):
        pass
    def elapsed_time(self, end):
        return 100.0

def device(kind, number):
    assert kind == "cuda" and number < COUNT
    return number

def randn(rows, columns, device, dtype):
    assert rows == columns == 8192
    return Matrix()

def device_count():
    {before}
    return COUNT

cuda = types.SimpleNamespace(
    device_count=device_count, is_bf16_supported=lambda: {bf16}, Event=Event, synchronize=lambda device: None,
    get_device_properties=lambda device: types.SimpleNamespace(name=f"Toy GPU {{device}}"),
    mem_get_info=lambda device: (60 << 30, 80 << 30),
)
"""
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"


def fake(folder: Path, name: str, version: str, code: str, more: str = "") -> Path:
    """A package that is found before the installed one."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(METADATA.format(name=name, version=version, more=more))
    return folder


def doctor(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wscl_embed", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_torchvision_of_another_torch_is_one_line_with_its_mend(tmp_path: Path) -> None:
    fake(tmp_path, "torchvision", "0.20.0", TORCHVISION, "Requires-Dist: torch (==2.5.0)\n")
    done = doctor(tmp_path, "--output", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("BROKEN")]
    assert "torchvision" in lines[number]
    assert "0.20.0 was built for torch 2.5.0, and torch is " in lines[number]
    assert "operator torchvision::nms does not exist" in lines[number]
    assert lines[number + 1].strip() == "-> pip install torch==2.5.0 torchvision==0.20.0"
    assert lines[-1] == "This would break a run: torchvision."
    assert "Traceback" not in done.stdout


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    fake(tmp_path, "torch", "9.9", "import os\nos.abort()\n")  # as a library built for another processor ends
    done = doctor(tmp_path, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["ok"] is False
    broken = [one for one in found["findings"] if one["state"] == "broken"]
    assert [one["what"] for one in broken] == ["torch"]
    assert broken[0]["said"].startswith("version 9.9 does not work: it ended with -")
    assert broken[0]["mend"] == "pip install torch torchvision"
    assert {"Python", "wscl-embed", "Pillow", "output", "cache", "[search]"} <= {
        one["what"] for one in found["findings"]
    }


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version
    versions = {"h5py": None, "numpy": "1.0", "duckdb": None}
    monkeypatch.setattr(packages, "version", lambda name: versions.get(name, real(name)))
    found = {one.what: one for one in [*packages.requirements(), *packages.extras()]}
    assert found["h5py"].state == found["numpy"].state == "broken"
    assert found["h5py"].said.startswith("not installed; h5py>=")
    assert found["numpy"].mend.startswith("pip install 'numpy>=")
    assert found["click"].state == "fine"
    search = found["[search]"]
    assert search == Finding("[search]", "note", "not installed: duckdb", "pip install 'wscl-embed[search]'")
    assert not {"[test]", "[fuzz]", "[release]"} & found.keys()


def test_places_that_are_full_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = machine.disks({"output": tmp_path / "not" / "there" / "yet"})
    assert good.said.startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(machine, "LITTLE_SPACE", 1 << 60)
    (full,) = machine.disks({"output": tmp_path})
    assert full.state == "broken"
    (closed,) = machine.disks({"output": Path("/proc")})
    assert closed.state == "broken"
    assert closed.said.startswith("/proc: nothing can be written (")


def test_decoders_of_the_installed_pillow() -> None:
    (found,) = machine.decoders()
    assert found.state in ("fine", "note")
    assert "jpg" in found.said


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "quota", lambda: 1.0)
    monkeypatch.setattr(machine, "in_new_python", lambda code: ('{"torch": 64, "openblas": 1}', ""))
    assert list(machine.processors())[1] == Finding(
        "threads", "note", "torch 64, openblas 1: more than 1 processors", "export OMP_NUM_THREADS=1"
    )


def gpus_of(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, **code: object) -> list[Finding]:
    """What is said of the GPUs that such a torch finds."""
    code = {"before": "pass", "bf16": True, **code}
    monkeypatch.setenv("PYTHONPATH", str(fake(folder, "torch", "9.9", TORCH_WITH_GPUS.format(count=count, **code))))
    return list(machine.gpus())


@pytest.mark.parametrize(("bf16", "kind"), [(True, "bfloat16"), (False, "float16")])
def test_each_gpu_with_the_rate_that_was_measured(
    bf16: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = f"220 TFLOPS in {kind}, 60 of 80 GiB free"  # 20 x 2 x 8192^3 operations in 0.1 s
    assert gpus_of(tmp_path, monkeypatch, 2, bf16=bf16) == [
        Finding("GPU", "fine", f"Toy GPU 0: {rate}"),
        Finding("GPU", "fine", f"Toy GPU 1: {rate}"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is looked for on Linux alone")
def test_a_driver_without_a_torch_for_it_and_a_torch_without_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CUDA_LIBRARY", "import ctypes; ctypes.CDLL(None)")
    (found,) = gpus_of(tmp_path / "a", monkeypatch, 0)
    assert found.state == "note"
    assert found.said == "there is an NVIDIA driver, and torch finds no device"
    monkeypatch.setattr(machine, "CUDA_LIBRARY", "import ctypes; ctypes.CDLL('libno-such-driver.so.1')")
    (found,) = gpus_of(tmp_path / "b", monkeypatch, 0)
    assert found == Finding("GPU", "fine", "none; everything runs on the processors")


def test_a_driver_torch_cannot_work_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "The NVIDIA driver on your system is too old (found version 11040)."
    (found,) = gpus_of(tmp_path, monkeypatch, 1, before=f"raise RuntimeError({said!r})")
    assert found.state == "broken"
    assert found.said == f"RuntimeError: {said}"
    assert "pytorch.org" in found.mend


def test_code_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wscl_embed.doctor.finding.SECONDS", 1)
    assert in_new_python("import time; time.sleep(60)") == ("", "no answer within 1 s")
    assert in_new_python("print(1)") == ("1", "")


@pytest.mark.slow
def test_this_installation_is_well(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("All is well.\n")
    assert "torchvision" in done.stdout
