"""The machine: processors and threads, GPUs and their real speed, decoders, disks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wscl_embed.doctor.finding import Finding, in_new_python

WRITTEN = 64 << 20  # bytes of the disk test
LITTLE_SPACE = 2 << 30
SLOW_DISK = 20  # MB/s

THREADS = """
import json, torch, numpy
from threadpoolctl import threadpool_info
numpy.ones((2, 2)) @ numpy.ones((2, 2))
pools = {one["internal_api"]: one["num_threads"] for one in threadpool_info()}
print(json.dumps({"torch": torch.get_num_threads(), **pools}))
"""
GPUS = """
import json, torch
found = []
for number in range(torch.cuda.device_count()):
    device = torch.device("cuda", number)
    properties = torch.cuda.get_device_properties(device)
    kind = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    a = torch.randn(8192, 8192, device=device, dtype=kind)
    for _ in range(3):
        a @ a
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(20):
        a @ a
    end.record()
    torch.cuda.synchronize(device)
    rate = 20 * 2 * 8192**3 / (start.elapsed_time(end) / 1000) / 1e12
    free, total = torch.cuda.mem_get_info(device)
    found.append([properties.name, str(kind).removeprefix("torch."), rate, free / 2**30, total / 2**30])
print(json.dumps(found))
"""
CUDA_LIBRARY = "import ctypes; ctypes.CDLL('libcuda.so.1')"
FEATURES = ("jpg", "libjpeg_turbo", "zlib", "webp", "libtiff", "avif")
DECODERS = f"""
import json, PIL
from PIL import features
have = {{name: features.check(name) for name in {FEATURES!r} if name in [*features.modules, *features.codecs,
        *features.features]}}
print(json.dumps([PIL.__version__, have]))
"""


def processors() -> Iterator[Finding]:
    """Processors this process may use, and the threads that libraries would start on them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota()
    said = f"{cores} of {os.cpu_count()}"
    allowed = cores if limit is None else min(cores, max(1, round(limit)))
    if limit is not None:
        said += f", a quota of {limit:g} by the control group"
    yield Finding("processors", "fine", said)
    threads, error = in_new_python(THREADS)
    if error:
        yield Finding("threads", "note", f"not measured: {error}")
        return
    counts: dict[str, int] = json.loads(threads)
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    if max(counts.values()) > allowed:
        yield Finding("threads", "note", f"{said}: more than {allowed} processors", f"export OMP_NUM_THREADS={allowed}")
    else:
        yield Finding("threads", "fine", said)


def quota() -> float | None:
    """The processors a control group lets this process have, in version 2 of them; None for no limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::"))
        text = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text(encoding="utf-8")
        most, period = text.split()
    except (OSError, StopIteration, ValueError):
        return None
    return None if most == "max" else int(most) / int(period)


def gpus() -> Iterator[Finding]:
    """Each GPU and how fast it multiplies matrices; whether there is one that torch does not see."""
    said, error = in_new_python(GPUS)
    if error:
        yield Finding("GPU", "broken", error, "pip install a torch for this driver: pytorch.org/get-started")
        return
    found = json.loads(said)
    for name, kind, rate, free, total in found:
        yield Finding("GPU", "fine", f"{name}: {rate:.0f} TFLOPS in {kind}, {free:.0f} of {total:.0f} GiB free")
    if not found and sys.platform == "linux" and not in_new_python(CUDA_LIBRARY)[1]:
        line = "pip install a torch for CUDA: pytorch.org/get-started"
        yield Finding("GPU", "note", "there is an NVIDIA driver, and torch finds no device", line)
    elif not found:
        yield Finding("GPU", "fine", "none; everything runs on the processors")


def decoders() -> Iterator[Finding]:
    """What Pillow was built with."""
    said, error = in_new_python(DECODERS)
    if error:
        yield Finding("Pillow", "broken", error, "pip install --force-reinstall pillow")
        return
    release, have = json.loads(said)
    lacking = [name for name in FEATURES if not have.get(name)]
    needed = [name for name in lacking if name in ("jpg", "zlib")]
    there = ", ".join(name for name in FEATURES if name not in lacking)
    text = f"{release} with {there}" + (f"; without {', '.join(lacking)}" if lacking else "")
    mend = "pip install --force-reinstall --only-binary pillow pillow" if lacking else ""
    yield Finding("Pillow", "broken" if needed else "note" if lacking else "fine", text, mend)


def disks(places: dict[str, Path]) -> Iterator[Finding]:
    """Free space in each place, and how fast it takes 64 MiB."""
    for what, place in places.items():
        folder = next(parent for parent in [place.absolute(), *place.absolute().parents] if parent.is_dir())
        try:
            free, rate = shutil.disk_usage(folder).free, writing_rate(folder)
        except OSError as error:
            yield Finding(what, "broken", f"{folder}: nothing can be written ({error.strerror or error})")
            continue
        said = f"{folder}: {free / 2**30:.1f} GiB free, writes {rate:.0f} MB/s"
        if free < LITTLE_SPACE:
            yield Finding(what, "broken", f"{said}; less than {LITTLE_SPACE >> 30} GiB", "make room, or name another")
        else:
            yield Finding(what, "note" if rate < SLOW_DISK else "fine", said)


def writing_rate(folder: Path) -> float:
    """MB/s at which ``folder`` takes 64 MiB, the time until they are on the disk included."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(WRITTEN >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / 1e6 / (time.perf_counter() - start)
